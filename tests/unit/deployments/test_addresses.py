"""Which servers, registries and clusters are called. The rules for addresses are tested in tests/unit/netguard."""

import pytest
from django.core.exceptions import ValidationError

from deployments.client import errors
from deployments.client.client import MMSClient
from deployments.client.http import exchange, new_session
from deployments.models.validators import check_authority, check_base_url, check_location
from tests.doubles.mms import MMS


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[fe80::1]"])
def test_a_call_to_a_forbidden_address_fails_and_sends_nothing(host: str) -> None:
    with new_session() as session, pytest.raises(errors.UnreachableError) as error:
        exchange(session, "GET", f"http://{host}/latest/meta-data/", seconds=3)
    assert "never called" in str(error.value)


def test_the_client_of_an_account_obeys_the_same_rule() -> None:
    client = MMSClient("http://169.254.169.254", "s", "g", "a", token="t", api_version="1")
    with client, pytest.raises(errors.UnreachableError, match="never called"):
        client.list_models()


def test_a_server_on_this_machine_is_called(mms: MMS) -> None:
    with MMSClient(mms.url, "s", "g", "a", token=MMS.token, api_version="1") as client:
        assert client.list_models().items == []


@pytest.mark.parametrize(
    "url",
    [
        "mms.example",
        "ftp://mms.example",
        "javascript:alert(1)",
        "http://",
        "http://[",
        "http://mms.example:0",
        "http://mms.example:99999",
        "http://user:pw@mms.example",
        "http://mms.example/api",
        "http://mms.example?x=1",
        "http://mms.example#x",
        "http://mms.exa mple",
        "http://mms.example\\@evil.example",
        "http://169.254.169.254",
        "http://[::ffff:169.254.169.254]",
    ],
)
def test_an_invalid_server_address_is_refused_on_entry(url: str) -> None:
    with pytest.raises(ValidationError):
        check_base_url(url)


@pytest.mark.parametrize("url", ["http://mms:8000", "https://10.0.0.5", "https://mms.example/behind/a/proxy"])
def test_addresses_of_servers(url: str) -> None:
    check_base_url(url)


@pytest.mark.parametrize(
    "location", ["oci://local", "example.azurecr.io", "localhost:5000/team", "http://10.0.0.5:5000"]
)
def test_locations_of_registries(location: str) -> None:
    check_location(location)


@pytest.mark.parametrize("location", ["oci://elsewhere", "file:///etc", "a b", "169.254.169.254", "u:p@r.example", ""])
def test_invalid_locations_of_registries(location: str) -> None:
    with pytest.raises(ValidationError):
        check_location(location)


def test_a_client_secret_is_sent_only_over_https_or_to_this_machine() -> None:
    check_authority("https://login.example")
    check_authority("http://127.0.0.1:5000")
    with pytest.raises(ValidationError, match="https"):
        check_authority("http://login.example")
