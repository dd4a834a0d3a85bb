"""The form that builds an image, and its picker for manifests."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.db.models import Q, QuerySet

from dashboard.catalog.picker import Choice, Picker, make_picker
from dashboard.forms.fields.text import DescriptionField
from dashboard.forms.resources.operation import OperationForm
from deployments.models import Manifest, RegistryInfo

MAX_DESCRIPTION_CHARS = 512


def usable_manifests(account: Any) -> QuerySet[Manifest]:
    """Return the account's manifests that exist at the server, newest first."""
    rows = Manifest.objects.filter(account=account, mms_id__isnull=False, vanished_at=None)
    return rows.prefetch_related("models")


def search_manifests(rows: QuerySet[Manifest], query: str) -> QuerySet[Manifest]:
    """Filter for rows that match every word of `query` in description, runtime, driver, id, or a model's name."""
    for word in query.split():
        models = Q(
            pk__in=Manifest.models.through.objects.filter(registeredmodel__name__has_word=word).values("manifest")
        )
        plain = Q(description__has_word=word) | Q(driver_program__has_word=word) | Q(runtime_type__has_word=word)
        rows = rows.filter(models | plain | Q(mms_id__istartswith=word))
    return rows


def models_of(manifest: Manifest) -> str:
    """Return the manifest's models as text: `iris v3, scaler v1`."""
    return ", ".join(map(str, manifest.models.all())) or ", ".join(map(str, manifest.model_ids)) or "no models"


def describe_manifests(rows: Sequence[Manifest]) -> list[Choice]:
    """Return the manifests as choices."""
    return [Choice(row.pk, str(row), f"{models_of(row)} · {row.runtime_type}", row.added_at) for row in rows]


class CreateImageForm(OperationForm):
    """Manifest, registry and description of an image."""

    kind = "create_image"

    manifest = forms.ModelChoiceField(
        Manifest.objects.none(), error_messages={"required": "Choose the manifest to build the image from."}
    )
    registry = forms.ModelChoiceField(
        RegistryInfo.objects.none(),
        empty_label=None,
        help_text="The registry that the image is pushed to.",
        error_messages={"required": "Choose a registry."},
    )
    description = DescriptionField(MAX_DESCRIPTION_CHARS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["manifest"].queryset = usable_manifests(self.account)  # type: ignore[attr-defined]
        # Only workers need the password.
        registries = RegistryInfo.objects.filter(account=self.account).defer("password")
        self.fields["registry"].queryset = registries  # type: ignore[attr-defined]

    def make_pickers(self) -> dict[str, Picker]:
        """Return the picker for the manifest."""
        picker = make_picker(
            "manifest",
            usable_manifests(self.account),
            noun="manifest",
            many=False,
            value=self["manifest"].value(),
            query=self.picker_query("manifest"),
            search=search_manifests,
            describe=describe_manifests,
        )
        return {"manifest": picker}

    def notes(self) -> list[str]:
        """Point out a missing driver."""
        if self.cleaned_data["manifest"].driver_program:
            return []
        return ["This manifest has no driver script, so the image can’t answer requests."]
