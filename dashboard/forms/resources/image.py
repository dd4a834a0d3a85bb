"""Create an image from a manifest, and what people see of manifests when they pick one."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.db.models import Q, QuerySet

from dashboard.catalog.picker import Choice, Picker, make_picker
from dashboard.forms.fields.text import DescriptionField
from dashboard.forms.resources.operation import OperationForm
from deployments.models import Manifest, RegistryInfo

DESCRIPTION_MAX = 512


def usable_manifests(account: Any) -> QuerySet[Manifest]:
    """The manifests of the account that the server knows, newest first."""
    rows = Manifest.objects.filter(account=account, mms_id__isnull=False, vanished_at=None)
    return rows.prefetch_related("models")


def search_manifests(rows: QuerySet[Manifest], query: str) -> QuerySet[Manifest]:
    """Those whose description, runtime, driver, id or one of whose models' names has every word of `query`."""
    for word in query.split():
        models = Q(
            pk__in=Manifest.models.through.objects.filter(registeredmodel__name__icontains=word).values("manifest")
        )
        plain = Q(description__icontains=word) | Q(driver_program__icontains=word) | Q(runtime_type__icontains=word)
        rows = rows.filter(models | plain | Q(mms_id__istartswith=word))
    return rows


def models_of(manifest: Manifest) -> str:
    """The manifest's models for a line of text: `iris v3, scaler v1`."""
    return ", ".join(map(str, manifest.models.all())) or ", ".join(map(str, manifest.model_ids)) or "no models"


def describe_manifests(rows: Sequence[Manifest]) -> list[Choice]:
    return [Choice(row.pk, str(row), f"{models_of(row)} · {row.runtime_type}", row.added_at) for row in rows]


class CreateImageForm(OperationForm):
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
    description = DescriptionField(DESCRIPTION_MAX)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["manifest"].queryset = usable_manifests(self.account)  # type: ignore[attr-defined]
        # The password stays where it is until a worker needs it.
        registries = RegistryInfo.objects.filter(account=self.account).defer("password")
        self.fields["registry"].queryset = registries  # type: ignore[attr-defined]

    def make_pickers(self) -> dict[str, Picker]:
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
        if self.cleaned_data["manifest"].driver_program:
            return []
        return ["This manifest has no driver script, so the image can’t answer requests."]
