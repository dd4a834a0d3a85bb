"""Groups are found in nested claims, and a missing claim is logged."""

from typing import Any

import pytest

from dashboard.access.group_roles import find_claim, groups_of, parse_grants
from dashboard.auth import oidc

KEYCLOAK = {"realm_access": {"roles": ["ml-team"]}, "resource_access": {"my.client": {"roles": ["ops"]}}}


@pytest.mark.parametrize(
    ("claims", "name", "value"),
    [
        ({"groups": ["a"]}, "groups", ["a"]),
        (KEYCLOAK, "realm_access.roles", ["ml-team"]),
        (KEYCLOAK, "resource_access.my.client.roles", ["ops"]),
        ({**KEYCLOAK, "realm_access.roles": ["literal"]}, "realm_access.roles", ["literal"]),
        ({"a": {"b": {"c": 1}}, "a.b": {"c": 2}}, "a.b.c", 2),
        ({"a": {"b": {"c": 1}}, "a.b": {"d": 2}}, "a.b.c", 1),
        ({"https://example.com/roles": ["x"]}, "https://example.com/roles", ["x"]),
        ({"groups": []}, "groups", []),
        ({"a": ["b"]}, "a.b", None),
        ({"a": {"b": None}}, "a.b", None),
        ({}, "realm_access.roles", None),
        ({}, ".", None),
    ],
)
def test_dotted_claims_are_followed_and_literal_names_take_precedence(
    claims: dict[str, Any], name: str, value: Any
) -> None:
    assert find_claim(claims, name) == value


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        (["a", "b"], {"a", "b"}),
        ("a", {"a"}),
        ({"a": {"id": 1}, "b": {}}, {"a", "b"}),
        ([1, "a"], {"1", "a"}),
        (None, set()),
        ("", set()),
        ([], set()),
    ],
)
def test_a_claim_lists_groups_in_any_usual_form(value: Any, groups: set[str]) -> None:
    assert groups_of(value) == groups


def test_a_missing_claim_is_logged_once(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_missing_claims", set())
    settings.OIDC_GROUPS_CLAIM = "realm_access.roles"
    settings.OIDC_ROLES = parse_grants("ml-team=lab:scientist")
    for _ in range(2):
        assert oidc._groups({"sub": "secret-subject", "email": "ada@example.com"}) == set()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no claim 'realm_access.roles' (OIDC_GROUPS_CLAIM)" in caplog.text
    assert "It sent: email, sub." in caplog.text
    assert "ada@example.com" not in caplog.text
    assert oidc._groups(KEYCLOAK) == {"ml-team"}
    assert len(caplog.records) == 1


def test_without_group_roles_a_missing_claim_is_not_logged(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.OIDC_ROLES = []
    assert oidc._groups({"sub": "s"}) == set()
    assert caplog.records == []
