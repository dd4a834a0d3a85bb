"""Kubeconfigs are parsed and never executed: programs and files are refused by name, for every user."""

import base64
from typing import Any

import pytest

from dashboard.ops.startup.bundled_account import KUBE_CONFIG
from deployments.accounts import kubeconfig
from deployments.accounts.kubeconfig import InvalidKubeconfigError, parse
from tests.doubles.kubernetes import kubeconfig as written

SERVER = {"server": "https://k8s.example:6443"}
PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
INLINE = base64.b64encode(PEM).decode()


def test_inline_values_are_read() -> None:
    user = {"token": "t", "client-certificate-data": INLINE, "client-key-data": INLINE}
    access = parse(written({**SERVER, "certificate-authority-data": INLINE}, user))
    assert (access.server, access.token, access.ca_certificate) == ("https://k8s.example:6443", "t", PEM)
    assert (access.certificate, access.key, access.skips_tls_verify) == (PEM, PEM, False)
    assert "token" not in repr(access)


def test_the_bundled_engine_is_a_cluster_like_any_other() -> None:
    assert parse(KUBE_CONFIG).server == kubeconfig.BUNDLED_ENGINE


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {"exec": {"command": "sh", "args": ["-c", "id"]}}, "a program to run"),
        ({}, {"exec": None}, "a program to run"),
        ({}, {"auth-provider": {"name": "gcp", "config": {"cmd-path": "sh"}}}, "a plug-in to run"),
        ({}, {"tokenFile": "/etc/shadow"}, "“tokenFile”"),
        ({}, {"client-certificate": "c.pem"}, "“client-certificate”"),
        ({}, {"client-key": "/root/.ssh/id_rsa"}, "“client-key”"),
        ({"certificate-authority": "/etc/passwd"}, {}, "“certificate-authority”"),
        ({"proxy-url": "socks5://evil.example"}, {}, "“proxy-url”"),
        ({"server": "file:///etc/passwd"}, {}, "starts with https"),
        ({"server": "https://user:pw@k8s.example"}, {}, "starts with https"),
        ({"server": "process://elsewhere"}, {}, "starts with https"),
        ({"server": ["https://k8s.example"]}, {}, "starts with https"),
        ({"server": "http://169.254.169.254"}, {}, "never called"),
        ({"server": "https://[::ffff:169.254.169.254]"}, {}, "never called"),
        ({"certificate-authority-data": "???"}, {}, "not base64"),
        ({"certificate-authority-data": "AAAA"}, {}, "no PEM"),
        ({}, {"token": 12345678901234567890}, "must be a string"),
        ({}, {"token": ["t"]}, "must be a string"),
    ],
)
def test_programs_files_and_bad_addresses_are_refused(
    cluster: dict[str, Any], user: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidKubeconfigError, match=words):
        parse(written({**SERVER, **cluster}, user))


def test_users_and_clusters_other_than_the_current_ones_are_checked() -> None:
    sly = [{"name": "u", "user": {"token": "t"}}, {"name": "sly", "user": {"exec": {"command": "sh"}}}]
    with pytest.raises(InvalidKubeconfigError, match="“sly” names a program"):
        parse(written(SERVER, {}, users=sly))
    two = [{"name": "c", "cluster": SERVER}, {"name": "d", "cluster": {"server": "http://169.254.169.254"}}]
    with pytest.raises(InvalidKubeconfigError, match="never called"):
        parse(written(SERVER, {}, clusters=two))


GIVEN_ONCE = """\
clusters:
- name: c
  cluster:
    server: https://k8s.example
users:
- name: u
  user:
    token: first
"""
TWICE = [
    GIVEN_ONCE + "clusters: []\n",
    GIVEN_ONCE + '"clusters": []\n',
    GIVEN_ONCE.replace("    server:", "    server: https://other.example\n    server:"),
    GIVEN_ONCE + "    token: second\n",
    GIVEN_ONCE + "    'token': second\n",
    GIVEN_ONCE + "- name: u\n  user: {token: second}\n",
    GIVEN_ONCE + "  name: u\n",
    GIVEN_ONCE + "    <<: {token: second}\n",
    '{"clusters": [{"name": "c", "name": "c", "cluster": {"server": "https://k8s.example"}}]}',
]


def test_input_without_duplicates_is_accepted() -> None:
    assert parse(GIVEN_ONCE).token == "first"


@pytest.mark.parametrize("text", TWICE)
def test_duplicates_are_rejected(text: str) -> None:
    """Parsers disagree on which value counts, so the checked one might not be the one that is used."""
    with pytest.raises(InvalidKubeconfigError, match=r"twice|two entries|merge key") as error:
        parse(text)
    assert "first" not in str(error.value)
    assert "second" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- 1\n- 2",
        "just words",
        "clusters: 5",
        "clusters: [5]",
        "clusters: [{name: c, cluster: 5}]",
        "clusters: []",
        "!!python/object/apply:os.system [id]",
        "clusters: !!python/name:os.system ''",
        "a: &a [x]\nclusters: [*a, *a]",
        "clusters: []\n---\nclusters: []",
        "[" * 50_000,
        "clusters: [{name: c, cluster: {server: 'https://k8s.example'}}]\ncurrent-context: nowhere",
        "clusters: \x00",
        "a" * (kubeconfig.MAX_BYTES + 1),
        "clusters: \ud800",
        "2001-13-45: x\nclusters: []",
        *TWICE,
    ],
)
def test_an_invalid_kubeconfig_is_explained(text: str) -> None:
    with pytest.raises(InvalidKubeconfigError) as error:
        parse(text)
    assert str(error.value).endswith(".")


def test_no_error_repeats_a_secret() -> None:
    for user in ({"token": ["not-to-be-seen"]}, {"client-key-data": "not-to-be-seen!"}, {"exec": "not-to-be-seen"}):
        with pytest.raises(InvalidKubeconfigError) as error:
            parse(written(SERVER, user))
        assert "not-to-be-seen" not in str(error.value)
        assert error.value.__cause__ is None
