"""Secrets are removed from text in every spelling, and other text isn't changed."""

import base64
import json
import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netguard import redaction
from netguard.redaction import MASK, MAX_REMEMBERED, Redactor, credentials_in_kubeconfig
from tests.support.spellings import spellings

AROUND = ["{}", "before {} after", 'Basic {}"', "?password={}&user=x", "<b>{}</b>", "line\n{}\nline", "https://u:{}@h/"]
HARD = [
    "pw12",
    "p@ss",
    "!!!!",
    'quo"te\\back',
    "\\\\\\\"'",
    "Grüße-aus-Köln",
    "пароль",
    "emoji😀pass",
    "100%25&amp;<b>",
    "with space+plus/slash=",
    "tab\tand\\n",
    "\\u0041\\x41",
    secrets.token_urlsafe(32),
    secrets.token_hex(12),
    secrets.token_urlsafe(900),
    base64.b64encode(secrets.token_bytes(1200)).decode(),
]


@pytest.mark.parametrize("secret", HARD, ids=range(len(HARD)))
def test_a_secret_is_recognized_in_every_spelling(secret: str) -> None:
    redactor = Redactor([secret])
    for name, spelled in spellings(secret).items():
        for around in AROUND:
            text = around.format(spelled)
            told = redactor.text(text)
            assert MASK in told, (name, text)
            assert spelled not in told, (name, text)


@given(st.text(min_size=4, max_size=40).filter(lambda text: len(text.replace("\0", "").strip()) >= 4))
def test_any_secret_is_recognized(secret: str) -> None:
    secret = secret.replace("\0", "").strip()
    redactor = Redactor([secret])
    for name, spelled in spellings(secret.encode("utf-8", "replace").decode()).items():
        if secret.isprintable():  # other characters have no single line in a log
            assert MASK in redactor.text(f"x {spelled} y"), name


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=200))
def test_only_a_secret_is_removed(found: list[str], text: str) -> None:
    redactor = Redactor(found)
    if not redactor.spans(text):
        assert redactor.text(text) == text
    assert Redactor([]).text(text) == text


def test_short_texts_and_other_words_are_not_secrets() -> None:
    redactor = Redactor(["abc", "", "   ", "hunter2-long"])
    assert redactor.text("abc of hunter2, hunter and long") == "abc of hunter2, hunter and long"


def test_each_line_of_a_secret_is_recognized() -> None:
    """Logs are redacted by line."""
    redactor = Redactor(["-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"])
    assert redactor.text("key hkiG9w0BAQEFAASC of") == f"key {MASK} of"
    assert redactor.text("-----BEGIN KEY-----") == "-----BEGIN KEY-----"


def test_a_long_token_is_recognized_when_it_was_cut() -> None:
    token = secrets.token_urlsafe(600)
    for part in (token[:300], token[150:500], token[400:]):
        assert Redactor([token]).text(f"token {part}…") == f"token {MASK}…"


def test_json_is_redacted_with_the_names_of_its_fields() -> None:
    redactor = Redactor(["s3cret-word", "12345678"])
    body = json.dumps({"s3cret-word": ["x", {"y": "a s3cret-word"}], "n": 12345678, "m": 1234567, "b": True})
    assert redactor.json(body.encode()) == {MASK: ["x", {"y": f"a {MASK}"}], "n": MASK, "m": 1234567, "b": True}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
def test_json_may_hide_a_secret_in_escapes_and_encodings(encoding: str) -> None:
    escaped = '{"a": "\\u0073\\u0033cret-\\u0000word", "b": "s3cret-word"}'
    assert Redactor(["s3cret-word"]).json(escaped.encode(encoding)) == {"a": MASK, "b": MASK}


def test_a_short_secret_does_not_break_ids_and_dates() -> None:
    redactor = Redactor(["2026", "a1b2"])
    body = b'{"id": "a1b2-77", "at": "2026-11-27T06:00:00Z", "on": "2026-11-27", "name": "2026 a1b2"}'
    found = redactor.json(body, id_names=frozenset({"id"}))
    assert found == {"id": "a1b2-77", "at": "2026-11-27T06:00:00Z", "on": "2026-11-27", "name": f"{MASK} {MASK}"}
    assert Redactor(["a-long-secret"]).json(b'{"id": "a-long-secret"}', id_names=frozenset({"id"})) == {"id": MASK}


def test_many_secrets_cost_no_more_than_one() -> None:
    """The sampling finds each of a thousand keys, wherever it is."""
    keys = [secrets.token_hex(16) for _ in range(1000)]
    redactor = Redactor(keys)
    for at, key in enumerate(keys[:40]):
        assert redactor.text("x" * at + key) == "x" * 0 + redactor.text("x" * at) + MASK
    assert not redactor.spans("y" * 100_000)


def test_a_repeated_list_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor(["s3cret-word"])
    bodies = [json.dumps([str(number)] * 20_000).encode() for number in range(MAX_REMEMBERED + 2)]
    for body in bodies[:3]:
        redactor.json(body)
    monkeypatch.setattr(redactor, "may_contain", lambda text: pytest.fail("searched again"))
    redactor.json(bodies[0])


def test_hostile_text_is_searched_in_linear_time() -> None:
    redactor = Redactor(['\\"\\\\"&&é' * 8, "a&b&c&d&"])
    times = []
    for size in (20_000, 200_000):
        text = ('\\"' * size + "&amp;" * size + "%25" * size)[: size * 3]
        started = time.thread_time()
        redactor.text(f"{text} a b")
        times.append(time.thread_time() - started)
    assert times[1] < 60 * times[0] + 0.5


KUBE_CONFIG = """\
apiVersion: v1
current-context: production-cluster
contexts: [{name: production-cluster, context: {cluster: c, user: deployer}}]
clusters: [{name: c, cluster: {server: "https://k8s.example:6443/path", certificate-authority-data: Q0EtZGF0YQ==}}]
users:
- {name: deployer, user: {token: tok-12-chars, username: deployer, password: "pa ss", client-key-data: PEM_DATA}}
"""


def test_text_that_consists_of_encoded_secrets_is_extended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, calls = "correct horse battery staple", []

    def counted(text: str, span: tuple[int, int], run: frozenset[str]) -> tuple[int, int]:
        calls.append(span)
        return extended(text, span, run)

    extended = redaction._extended
    monkeypatch.setattr(redaction, "_extended", counted)
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    assert Redactor([secret]).text(f"1 {encoded * 1000} 2 {encoded} 3") == f"1 {MASK} 2 {MASK} 3"
    assert len(calls) == 2, "each extension reads the whole run, so the time would grow with its square"


def test_secrets_of_a_kubeconfig_are_its_credentials() -> None:
    pem = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END KEY-----\n"
    found = credentials_in_kubeconfig(KUBE_CONFIG.replace("PEM_DATA", base64.b64encode(pem).decode()))
    assert set(found) >= {"tok-12-chars", "pa ss", "Q0EtZGF0YQ==", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"}
    redactor = Redactor(found)
    said = "current-context: production-cluster, user deployer at https://k8s.example:6443/path"
    assert redactor.text(said) == said
    assert redactor.text("tok-12-chars pa ss MIIEvQIBADANBgkqhkiG9w0BAQEFAASC") == f"{MASK} {MASK} {MASK}"


def test_secrets_of_a_kubeconfig_that_is_no_longer_accepted_are_recognized() -> None:
    twice = KUBE_CONFIG + "users: [{name: u, user: {token: other-token}}]\n"
    assert {"tok-12-chars", "other-token"} <= set(credentials_in_kubeconfig(twice))
