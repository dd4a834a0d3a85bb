"""Create and update services, and what people see of images when they pick one."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.db.models import Q, QuerySet

from dashboard.catalog.picker import Choice, Picker, make_picker
from dashboard.forms.fields.text import check_service_name
from dashboard.forms.resources.image import models_of
from dashboard.forms.resources.operation import OperationForm
from deployments.models import Cluster, HostingAccount, Image, Manifest, Service

SERVICE_NAME_MAX = 255
PICK_AN_IMAGE = {"required": "Choose the image for the service."}


def usable_images(account: HostingAccount) -> QuerySet[Image]:
    """The images of the account that the server has built, newest first."""
    rows = Image.objects.filter(account=account, mms_id__isnull=False, vanished_at=None)
    return rows.select_related("manifest").prefetch_related("manifest__models")


def search_images(rows: QuerySet[Image], query: str) -> QuerySet[Image]:
    """Those whose description, digest, id or one of whose models' names has every word of `query`."""
    for word in query.split():
        links = Manifest.models.through.objects.filter(registeredmodel__name__icontains=word)
        ids = Q(mms_id__istartswith=word) | Q(digest__icontains=word)
        text = Q(description__icontains=word) | Q(manifest__description__icontains=word)
        rows = rows.filter(Q(manifest__in=links.values("manifest")) | text | ids)
    return rows


def describe_images(rows: Sequence[Image], running: int | None = None) -> list[Choice]:
    """The choices for `rows`; `running` is the primary key of the image that the service runs now."""
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
    """A form in which an image is picked."""

    image = forms.ModelChoiceField(Image.objects.none(), error_messages=PICK_AN_IMAGE)
    running: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["image"].queryset = usable_images(self.account)  # type: ignore[attr-defined]

    def make_pickers(self) -> dict[str, Picker]:
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
    """The account's clusters, those for production only where asked for. The kubeconfig stays where it is until a
    worker needs it."""
    rows = Cluster.objects.filter(account=account).defer("kube_config")
    return rows if production else rows.filter(production=False)


def production_clusters(account: HostingAccount) -> list[str]:
    """The names of the clusters that only operators deploy to."""
    return list(Cluster.objects.filter(account=account, production=True).values_list("name", flat=True))


class CreateServiceForm(ImageForm):
    kind = "create_service"

    name = forms.CharField(
        label="Service name",
        max_length=SERVICE_NAME_MAX,
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
        """`production`: whether the person may deploy to clusters that are for operators alone."""
        super().__init__(*args, **kwargs)
        self.fields["cluster"].queryset = clusters_of(self.account, production)  # type: ignore[attr-defined]
        self.closed = [] if production else production_clusters(self.account)


class UpdateServiceForm(ImageForm):
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
        return {"service": self.service, **self.cleaned_data}

    def clean_image(self) -> Image:
        image: Image = self.cleaned_data["image"]
        if image.pk == self.running:
            raise forms.ValidationError("The service already runs this image. Choose another one.")
        return image
