"""The form that adds an asset. Only the dashboard stores assets, until a manifest contains them."""

from dashboard.forms.fields.source import SourceForm
from dashboard.forms.fields.text import NameField
from deployments.models import Asset, HostingAccount


class AddAssetForm(SourceForm):
    """Source, id and MIME type of an asset."""

    name = NameField(
        label="Asset id",
        help_text="Up to 32 letters, digits and hyphens. In the image, the file has this name and its extension.",
    )

    field_order = ["file", "url", "name", "mime_type", "unpack"]

    def __init__(self, account: HostingAccount, *args: object, **kwargs: object) -> None:
        self.account = account
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on unchanged

    def save(self, by: str) -> Asset:
        """Store the asset of a valid form for the user named `by`."""
        values = {name: self.cleaned_data[name] for name in ("name", "url", "mime_type", "unpack")}
        return Asset.objects.create(account=self.account, created_by=by, **values)
