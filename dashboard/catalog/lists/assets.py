"""The list of assets. Assets exist only in the dashboard until a manifest contains them, so they have no badges."""

from dashboard.catalog.listing import Column, ListConfig

LIST = ListConfig(
    folder="assets",
    columns=(
        Column("name", "Name", ("name",)),
        Column("type", "Type", ("mime_type",), css="minor"),
        Column("source", "Source"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Added", ("added_at",), css="num"),
    ),
    search=("name", "mime_type"),
    has_badges=False,
)
