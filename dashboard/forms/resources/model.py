"""The form that registers a model."""

from typing import Any

from dashboard.forms.fields.source import SourceForm, is_archive
from dashboard.forms.fields.text import DescriptionField, NameField, TagsField
from dashboard.forms.resources.operation import OperationForm
from deployments.models import RegisteredModel

MAX_DESCRIPTION_CHARS = 200


class RegisterModelForm(SourceForm, OperationForm):
    """Source, name, tags and description of a model."""

    kind = "register_model"

    name = NameField()
    tags = TagsField()
    description = DescriptionField(MAX_DESCRIPTION_CHARS)

    field_order = ["file", "url", "name", "tags", "description", "mime_type", "unpack"]

    def notes(self) -> list[str]:
        """Point out an existing model of this name, and an archive that will not be unpacked."""
        return [note for note in (self._version_note(), self._archive_note()) if note]

    def arguments(self) -> dict[str, Any]:
        """Return the submitted values; `url` is also set for an uploaded file."""
        return {key: value for key, value in self.cleaned_data.items() if key != "file"}

    def _version_note(self) -> str:
        name = self.cleaned_data["name"]
        versions = RegisteredModel.objects.filter(account=self.account, name=name, version__isnull=False)
        newest = versions.order_by("-version").values_list("version", flat=True).first()
        return f"“{name}” already exists, up to version {newest}. This will be its next version." if newest else ""

    def _archive_note(self) -> str:
        if is_archive(self.file_name) and not self.cleaned_data["unpack"]:
            return f"“{self.file_name}” looks like an archive, but it won’t be unpacked."
        return ""
