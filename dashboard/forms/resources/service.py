"""The forms that deploy and update services, and their picker for images."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.db.models import Q, QuerySet

from dashboard.catalog.picker import Choice, Picker, make_picker
from dashboard.forms.fields.text import check_service_name
from dashboard.forms.resources.image import models_of
from dashboard.forms.resources.operation import OperationForm
from deployments.models import Cluster, HostingAccount, Image, Manifest, Service

MAX_SERVICE_NAME_CHARS = 255
IMAGE_MESSAGES = {"required": "Choose the image for the service."}


def usable_images(account: HostingAccount) -> QuerySet[Image]:
    """Return the account's images that exist at the server, newest first."""
    rows = Image.objects.filter(account=account, mms_id__isnull=False, vanished_at=None)
    return rows.select_related("manifest").prefetch_related("manifest__models")


def search_images(rows: QuerySet[Image], query: str) -> QuerySet[Image]:
    """Filter for rows that match every word of `query` in description, digest, id, or a model's name."""
    for word in query.split():
        links = Manifest.models.through.objects.filter(registeredmodel__name__has_word=word)
        ids = Q(mms_id__istartswith=word) | Q(digest__has_word=word)
        text = Q(description__has_word=word) | Q(manifest__description__has_word=word)
        rows = rows.filter(Q(manifest__in=links.values("manifest")) | text | ids)
    return rows


def describe_images(rows: Sequence[Image], running: int | None = None) -> list[Choice]:
    """Return the images as choices. `running`: the primary key of the image that the service runs now, to mark it."""
    return [
        Choice(
            row.pk,
            str(row),
            f"{models_of(row.manifest)} · {row.manifest.runtime_type}" if row.manifest else "manifest not reported",
            row.created_at or row.added_at,
            "runs now" if row.pk == running else "",
        )
        for row in rows
    ]


class ImageForm(OperationForm):
    """A form with a picker for an image."""

    image = forms.ModelChoiceField(Image.objects.none(), error_messages=IMAGE_MESSAGES)
    running: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["image"].queryset = usable_images(self.account)  # type: ignore[attr-defined]

    def make_pickers(self) -> dict[str, Picker]:
        """Return the picker for the image."""
        picker = make_picker(
            "image",
            usable_images(self.account),
            noun="image",
            many=False,
            value=self["image"].value(),
            query=self.picker_query("image"),
            search=search_images,
            describe=lambda rows: describe_images(rows, self.running),
        )
        return {"image": picker}


def clusters_of(account: HostingAccount, production: bool) -> QuerySet[Cluster]:
    """Return the account's clusters without their kubeconfigs. `production`: also production clusters."""
    rows = Cluster.objects.filter(account=account).defer("kube_config")
    return rows if production else rows.filter(production=False)


def production_clusters(account: HostingAccount) -> list[str]:
    """Return the names of the production clusters, which only operators may deploy to."""
    return list(Cluster.objects.filter(account=account, production=True).values_list("name", flat=True))


class CreateServiceForm(ImageForm):
    """Name, image and cluster of a new service."""

    kind = "create_service"

    name = forms.CharField(
        label="Service name",
        max_length=MAX_SERVICE_NAME_CHARS,
        validators=[check_service_name],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}),
        help_text="Letters, digits, hyphens, dots and underscores. Must be unique in this account.",
    )
    cluster = forms.ModelChoiceField(
        Cluster.objects.none(),
        empty_label=None,
        help_text="The cluster that the service runs on.",
        error_messages={"required": "Choose a cluster."},
    )

    field_order = ["name", "image", "cluster"]

    def __init__(self, *args: Any, production: bool = False, **kwargs: Any) -> None:
        """Create the form. `production`: the user may deploy to production clusters."""
        super().__init__(*args, **kwargs)
        self.fields["cluster"].queryset = clusters_of(self.account, production)  # type: ignore[attr-defined]
        self.closed = [] if production else production_clusters(self.account)


class UpdateServiceForm(ImageForm):
    """The new image of a service; also its cluster, if the dashboard doesn't know it."""

    kind = "update_service"

    def __init__(self, service: Service, *args: Any, production: bool = False, **kwargs: Any) -> None:
        self.service = service
        self.running = service.image_id
        super().__init__(service.account, *args, **kwargs)
        clusters = clusters_of(self.account, production)
        if service.cluster_id is None and clusters.count() > 1:
            self.fields["cluster"] = forms.ModelChoiceField(
                clusters,
                help_text="This service was created outside the dashboard. The update needs its cluster’s pull secret.",
            )

    def arguments(self) -> dict[str, Any]:
        """Return the service and the submitted values."""
        return {"service": self.service, **self.cleaned_data}

    def clean_image(self) -> Image:
        """Raise ValidationError for the image that the service already runs."""
        image: Image = self.cleaned_data["image"]
        if image.pk == self.running:
            raise forms.ValidationError("The service already runs this image. Choose another one.")
        return image
