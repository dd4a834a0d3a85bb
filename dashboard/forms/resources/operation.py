"""Base class of the forms that request operations."""

from functools import cached_property
from typing import Any, ClassVar

from django import forms

from dashboard.catalog.picker import Picker
from deployments.models import HostingAccount, Operation
from deployments.operations.submit import SUBMIT, RequestRefusedError, preview


class OperationForm(forms.Form):
    """A form that requests an operation of one `kind`.

    Fields for rows of long lists are rendered as pickers; see dashboard.catalog.picker.
    """

    kind: ClassVar[str]

    def __init__(self, account: HostingAccount, *args: Any, **kwargs: Any) -> None:
        self.account = account
        super().__init__(*args, **kwargs)

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of the function in SUBMIT, from a valid form."""
        return self.cleaned_data

    def notes(self) -> list[str]:
        """Return sentences that the preview of a valid form shows."""
        return []

    def submit(self, by: str) -> Operation | None:
        """Request the operation for the user named `by`. Return None, with an error on the form, if it is refused."""
        try:
            return SUBMIT[self.kind](self.account, by, **self.arguments())
        except RequestRefusedError as refused:
            self._add_refusal(refused)
            return None

    def preview(self) -> dict[str, Any] | None:
        """Return the JSON to be sent, without secrets; None, with an error on the form, if it would be refused."""
        try:
            return preview(self.kind, **self.arguments())
        except RequestRefusedError as refused:
            self._add_refusal(refused)
            return None

    def _add_refusal(self, refused: RequestRefusedError) -> None:
        self.add_error(refused.field if refused.field in self.fields else None, refused.message)

    def clear_errors(self) -> None:
        """Show the submitted values without errors."""
        self.initial = {name: self[name].data for name in self.fields}
        self.is_bound = False
        self._errors = None
        self._bound_fields_cache.clear()  # type: ignore[attr-defined]  # bound fields cache their value

    def make_pickers(self) -> dict[str, Picker]:
        """Return the pickers of this form by field name."""
        return {}

    @cached_property
    def pickers(self) -> dict[str, Picker]:
        """The pickers of this form by field name."""
        return self.make_pickers()

    def picker_query(self, name: str) -> str:
        """Return the search text of the picker `name`."""
        return str(self.data.get(f"{name}-q", "")).replace("\0", "").strip()
