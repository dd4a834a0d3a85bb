"""The operators' list of registries that images may be pushed to."""

from typing import Any

import pytest

from mms.api.errors import ApiError
from mms.api.routes.images import check_registry


@pytest.mark.parametrize(
    "location",
    [
        "registry.example",
        "https://registry.example/team",
        "registry.example:443",
        "127.0.0.1:5001/team",
        "localhost:5001",
        "oci://local",
    ],
)
def test_images_may_be_pushed_to_listed_registries(settings: Any, location: str) -> None:
    settings.MMS_REGISTRIES = ["registry.example", "127.0.0.1:5001"]
    check_registry(location)
    settings.MMS_REGISTRIES = []
    check_registry(location)


@pytest.mark.parametrize("location", ["other.example", "registry.example.evil", "127.0.0.1:5002", "http://localhost"])
def test_other_registries_are_refused(settings: Any, location: str) -> None:
    check_registry(location)
    settings.MMS_REGISTRIES = ["registry.example", "127.0.0.1:5001"]
    with pytest.raises(ApiError, match="MMS_REGISTRIES"):
        check_registry(location)
