"""Sign-in with a real identity provider in a separate process."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from django.conf import settings as site_settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from dashboard.access import group_roles
from dashboard.auth import setup_link
from dashboard.models import AuditEntry, Identity, Membership, OpenSession, Role, Source
from dashboard.ops.doctor.checks import addresses
from deployments.models import HostingAccount
from tests.doubles.identity_provider import CLIENT, Provider, running
from tests.support.html import compact
from tests.support.workshop import make_account, sign_in_superuser

pytestmark = pytest.mark.django_db
ROLES = "ml-team=lab:scientist,ops=*:operator,watchers=lab:viewer,admins=admin"


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(process: Provider, settings: Any) -> Iterator[Provider]:
    for name, value in process.settings().items():
        setattr(settings, name, value)
    settings.OIDC_ROLES = group_roles.parse_grants(ROLES)
    yield process
    process.spoil()


@pytest.fixture
def lab() -> HostingAccount:
    return make_account("lab")


def go(client: Client, to: str = "") -> str:
    """Return the URL of the provider's page behind the button."""
    answer = client.get("/sign-in/provider/", {"next": to} if to else {})
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"]


def come_back(client: Client, location: str) -> Any:
    assert location.startswith(f"{site_settings.SITE_URL}/sign-in/provider/return/?"), location
    return client.get(location.removeprefix(site_settings.SITE_URL))


def sign_in(client: Client, subject: str, to: str = "") -> Any:
    """Sign in at the provider and return the response of the site to the callback."""
    answer = requests.post(go(client, to), data={"sub": subject}, allow_redirects=False, timeout=10)
    return come_back(client, answer.headers["Location"])


def person(subject: str) -> Any:
    return get_user_model().objects.get(identity__subject=subject)


def test_the_redirect_to_the_provider_has_pkce_state_and_nonce_and_no_secret(provider: Provider) -> None:
    asked = parse_qs(urlsplit(go(Client())).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert all(len(asked[name][0]) >= 20 for name in ("code_challenge", "state", "nonce"))
    assert CLIENT["OIDC_CLIENT_SECRET"] not in str(asked)


def test_a_new_user_gets_the_roles_of_their_groups_and_the_requested_page(
    provider: Provider, lab: HostingAccount
) -> None:
    other = make_account("other")
    provider.person("s-1", preferred_username="nina", groups=["ml-team", "choir"])
    client = Client()
    assert sign_in(client, "s-1", "/accounts/lab/models/").headers["Location"] == "/accounts/lab/models/"
    assert client.get("/accounts/lab/models/").status_code == 200
    assert client.get("/accounts/other/models/").status_code == 404
    nina = person("s-1")
    assert nina.get_username() == "nina"
    assert not nina.has_usable_password()
    member = Membership.objects.get(user=nina)
    assert (member.account_id, member.role, member.source) == (lab.pk, Role.SCIENTIST, Source.PROVIDER)
    assert "From a group of the identity provider" in client.get("/you/").text
    provider.person("s-2", preferred_username="olga", groups=["ops", "ml-team"])
    sign_in(Client(), "s-2")
    roles = Membership.objects.filter(user=person("s-2")).values_list("account_id", "role")
    assert set(roles) == {(lab.pk, Role.OPERATOR), (other.pk, Role.OPERATOR)}


def test_groups_are_found_in_a_nested_claim(provider: Provider, lab: HostingAccount, settings: Any) -> None:
    settings.OIDC_GROUPS_CLAIM = "realm_access.roles"
    provider.person("s-9", preferred_username="kim", realm_access={"roles": ["ml-team", "offline_access"]})
    provider.spoil(realm_access={"other": True})  # in the ID token; the user info has the roles
    sign_in(Client(), "s-9")
    assert Membership.objects.get(user=person("s-9")).role == Role.SCIENTIST


def test_roles_from_groups_end_with_the_group_and_roles_from_the_site_stay(
    provider: Provider, lab: HostingAccount
) -> None:
    other = make_account("other")
    provider.person("s-1", preferred_username="nina", groups=["ml-team", "admins"])
    sign_in(Client(), "s-1")
    nina = person("s-1")
    assert nina.is_superuser
    Membership.objects.create(user=nina, account_id=other.pk, role=Role.VIEWER)
    provider.person("s-1", preferred_username="nina", groups=["ops"])
    sign_in(Client(), "s-1")
    roles = dict(Membership.objects.filter(user=nina).values_list("account_id", "role"))
    assert roles == {lab.pk: Role.OPERATOR, other.pk: Role.VIEWER}
    assert not person("s-1").is_superuser
    provider.person("s-1", preferred_username="nina")
    sign_in(Client(), "s-1")
    assert dict(Membership.objects.filter(user=nina).values_list("account_id", "role")) == {other.pk: Role.VIEWER}
    entry = AuditEntry.objects.filter(action="roles_from_provider").first()
    assert entry
    assert entry.via == "provider"
    assert entry.after == {"roles": {"other": "viewer"}, "administrator": False}


def test_administrator_access_from_the_site_stays_without_the_group(provider: Provider) -> None:
    provider.person("s-1", preferred_username="nina")
    sign_in(Client(), "s-1")
    get_user_model().objects.update(is_superuser=True)
    sign_in(Client(), "s-1")
    assert person("s-1").is_superuser


def test_a_matching_name_does_not_take_over_an_account(provider: Provider) -> None:
    root = get_user_model().objects.create_superuser("root", "root@example.com", "a long enough one")
    provider.person("s-evil", preferred_username="root", email="root@example.com", email_verified=True)
    sign_in(Client(), "s-evil")
    evil = person("s-evil")
    assert evil != root
    assert evil.get_username() == "root-2"
    assert not evil.is_superuser


@pytest.mark.parametrize(
    ("called", "name"), [("<b>x</b>", "b-x-b"), ("", "s-odd@example.com"), ("a" * 500, "a" * 120), ("日本", "日本")]
)
def test_unusual_names_become_valid_usernames(provider: Provider, called: str, name: str) -> None:
    provider.person("s-odd", preferred_username=called, email="s-odd@example.com")
    sign_in(Client(), "s-odd")
    assert person("s-odd").get_username() == name


def test_a_user_is_recognized_under_another_name(provider: Provider) -> None:
    provider.person("s-1", preferred_username="nina")
    sign_in(Client(), "s-1")
    provider.person("s-1", preferred_username="nina-married")
    sign_in(Client(), "s-1")
    assert Identity.objects.count() == 1


def test_a_denial_by_the_provider_is_explained(provider: Provider) -> None:
    client = Client()
    answer = requests.post(go(client), data={"action": "deny"}, allow_redirects=False, timeout=10)
    page = come_back(client, answer.headers["Location"])
    assert page.status_code == 403
    assert "The Company refused your sign-in" in page.text
    assert client.get("/you/").status_code == 302
    assert AuditEntry.objects.get().action == "sign_in_failed"


def test_a_deactivated_user_cannot_sign_in_and_loses_open_sessions(provider: Provider) -> None:
    client = Client()
    sign_in(client, "s-1")
    get_user_model().objects.update(is_active=False)
    assert client.get("/you/").status_code == 302
    page = sign_in(Client(), "s-1")
    assert page.status_code == 403
    assert "your account on this site is deactivated" in page.text


def test_a_callback_that_this_browser_did_not_start_is_rejected(provider: Provider) -> None:
    begun_elsewhere = requests.post(go(Client()), data={"sub": "s-1"}, allow_redirects=False, timeout=10)
    page = come_back(Client(), begun_elsewhere.headers["Location"])
    assert page.status_code == 400
    assert "This sign-in has expired" in page.text


def test_a_callback_works_once(provider: Provider) -> None:
    client = Client()
    answer = requests.post(go(client), data={"sub": "s-1"}, allow_redirects=False, timeout=10)
    assert come_back(client, answer.headers["Location"]).status_code == 302
    assert come_back(client, answer.headers["Location"]).status_code == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another-site"},
        {"iss": "http://127.0.0.1:9"},
        {"nonce": "of another sign-in"},
        {"exp": 1},
        {"sub": ""},
        {"sub": 7},
        {"signed": "by another"},
        {"signed": "not"},
    ],
    ids=str,
)
def test_a_forged_or_mismatched_token_is_rejected(provider: Provider, wrong: dict[str, Any]) -> None:
    provider.spoil(**wrong)
    client = Client()
    page = sign_in(client, "s-1")
    assert page.status_code == 502
    assert "couldn’t be verified" in page.text
    assert client.get("/you/").status_code == 302
    assert not get_user_model().objects.exists()


def test_an_unreachable_provider_is_reported(settings: Any, process: Provider) -> None:
    for name, value in process.settings(OIDC_ISSUER="http://127.0.0.1:9").items():
        setattr(settings, name, value)
    page = Client().get("/sign-in/provider/")
    assert page.status_code == 503
    assert "The Company can’t be reached" in page.text


def test_the_doctor_checks_the_providers_issuer(provider: Provider, settings: Any) -> None:
    assert addresses._check_provider().state == "ok"
    settings.OIDC_ISSUER = f"{provider.url}/nowhere"
    assert addresses._check_provider().state == "failed"


def test_without_a_provider_there_is_no_button_and_no_route(settings: Any) -> None:
    settings.OIDC_ISSUER = ""
    assert "/sign-in/provider/" not in Client().get("/sign-in/").text
    assert Client().get("/sign-in/provider/").status_code == 404
    assert Client().get("/sign-in/provider/return/").status_code == 404


def test_the_button_passes_on_the_requested_page(provider: Provider) -> None:
    page = Client().get("/sign-in/?next=/accounts/lab/models/%3Fq%3Da%26b").text
    assert 'href="/sign-in/provider/?next=%2Faccounts%2Flab%2Fmodels%2F%3Fq%3Da%26b"' in page
    assert "Sign in with The Company" in compact(page)


def test_signing_in_changes_the_session_key(provider: Provider) -> None:
    client = Client()
    answer = requests.post(go(client), data={"sub": "s-1"}, allow_redirects=False, timeout=10)
    before = client.cookies["sessionid"].value
    come_back(client, answer.headers["Location"])
    assert client.cookies["sessionid"].value != before
    assert not OpenSession.objects.filter(session_key=before).exists()


def test_users_of_the_provider_do_not_revoke_the_setup_link(provider: Provider) -> None:
    sign_in(Client(), "s-1")
    assert setup_link.create()
    provider.person("s-2", groups=["admins"])
    sign_in(Client(), "s-2")
    assert setup_link.create() is None


def test_users_of_the_provider_have_no_password(provider: Provider, live_redis: Any) -> None:
    sign_in(Client(), "s-1")
    admin = sign_in_superuser()
    pk = person("s-1").pk
    assert admin.post(f"/people/{pk}/invite/").status_code == 404
    assert "<small>identity provider</small>" in admin.get("/people/").text
    with pytest.raises(CommandError, match="signs in with the identity provider"):
        call_command("set_password", person("s-1").get_username())


def test_a_role_changed_by_an_operator_becomes_a_role_of_the_site(
    provider: Provider, lab: HostingAccount, live_redis: Any
) -> None:
    provider.person("s-1", groups=["ml-team"])
    sign_in(Client(), "s-1")
    member = Membership.objects.get()
    admin = sign_in_superuser()
    assert "from a group" in compact(admin.get("/accounts/lab/members/").text)
    admin.post(f"/accounts/lab/members/{member.pk}/", {"role": Role.VIEWER})
    provider.person("s-1", groups=["ops"])
    sign_in(Client(), "s-1")
    member.refresh_from_db()
    assert (member.role, member.source) == (Role.VIEWER, Source.SITE)


def test_deactivating_a_user_ends_their_sessions(provider: Provider, live_redis: Any) -> None:
    sign_in(Client(), "s-1")
    user = person("s-1")
    sign_in_superuser().post(f"/people/{user.pk}/", {"do": "deactivate"})
    assert not OpenSession.objects.filter(user_id=user.pk).exists()


@pytest.mark.parametrize("text", ["ml-team", "ml-team=lab", "ml-team=lab:boss", "=admin", "a=:viewer"])
def test_an_invalid_mapping_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        group_roles.parse_grants(text)


def test_group_names_may_contain_special_characters() -> None:
    grants = group_roles.parse_grants("cn=ml,ou=groups=lab:viewer; ops=*:operator")
    assert [grant.group for grant in grants] == ["cn=ml,ou=groups", "ops"]
    assert list(group_roles.ROLE_LEVELS) == Role.values
