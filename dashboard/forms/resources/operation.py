"""What every form that becomes an operation has in common."""

from functools import cached_property
from typing import Any, ClassVar

from django import forms

from dashboard.catalog.picker import Picker
from deployments.models import HostingAccount, Operation
from deployments.operations.submit import SUBMIT, RequestRefusedError, preview


class OperationForm(forms.Form):
    """A form for one kind of write. `kind` names the function of deployments.operations.submit that it calls.

    Fields that are chosen from long lists are shown by the pickers of `pickers`; see picker.py.
    """

    kind: ClassVar[str]

    def __init__(self, account: HostingAccount, *args: Any, **kwargs: Any) -> None:
        self.account = account
        super().__init__(*args, **kwargs)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the operation, from a valid form."""
        return self.cleaned_data

    def notes(self) -> list[str]:
        """What a person may want to know before sending a valid form, one sentence each."""
        return []

    def submit(self, by: str) -> Operation | None:
        """Ask for the operation in the name of `by`. None when it is refused: the form then says why."""
        try:
            return SUBMIT[self.kind](self.account, by, **self.arguments())
        except RequestRefusedError as refused:
            self._refuse(refused)
            return None

    def preview(self) -> dict[str, Any] | None:
        """What would be sent, secrets left out. None when it would be refused: the form then says why."""
        try:
            return preview(self.kind, **self.arguments())
        except RequestRefusedError as refused:
            self._refuse(refused)
            return None

    def _refuse(self, refused: RequestRefusedError) -> None:
        self.add_error(refused.field if refused.field in self.fields else None, refused.message)

    def unchecked(self) -> None:
        """Show what was typed without judging it yet."""
        self.initial = {name: self[name].data for name in self.fields}
        self.is_bound = False
        self._errors = None
        self._bound_fields_cache.clear()  # type: ignore[attr-defined]  # they remember the value they had

    def make_pickers(self) -> dict[str, Picker]:
        """The pickers of this form by field name."""
        return {}

    @cached_property
    def pickers(self) -> dict[str, Picker]:
        return self.make_pickers()

    def sought(self, name: str) -> str:
        """What was typed into the search of the picker `name`."""
        return str(self.data.get(f"{name}-q", "")).replace("\0", "").strip()
