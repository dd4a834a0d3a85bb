"""Hostile values for fields and bodies, identical in every run, and checks of their effects."""

from typing import Any

from django.apps import apps
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dashboard.models import AuditEntry
from tests.twins import examples


def tried(times: int) -> settings:
    """Return settings that try `times` cases in the nightly run, otherwise a third; always the same cases."""
    unchecked = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples(times // 3, times),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=unchecked,
    )


WORDS = st.sampled_from(
    [
        "", " ", "\0", "a\0b", "%00", "../../etc/passwd", "'; DROP TABLE auth_user; --", "{{7*7}}", "${jndi:x}",
        "<script>", "\u202e", "𝕏", "é", "²", "٣", "-1", "0", "1", "01", "1.0", "1e3", "NaN", "true", "null", "none",
        "[]", "{}", "9" * 30, "9" * 5000, "-" + "9" * 19, str(2**63), str(2**63 - 1), "a" * 33, "a" * 300,
        "a" * 200_000, "a,b\nc",
        "http://", "http://[::1", "http://a b", "javascript:alert(1)", "https://a.example/" + "x" * 3000, "//x", "file:///",
        "http://a.example:99999/", "http://\udcff/".encode(errors="replace").decode(), "dependencies: &a [*a]",
        "a: b: c", "!!python/object/apply:os.system [id]", "- -r /etc/passwd", "--index-url http://x",
    ]
)  # fmt: skip
TEXTS = WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
HALVES = st.sampled_from(["\ud800", "a\udfffb", "\udcff"])  # lone surrogates, which JSON can contain
SCALARS = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXTS | HALVES
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | HALVES, inner, max_size=3),
    max_leaves=8,
)


def counts() -> dict[str, int]:
    """Return the row count of each table. Refusals may add audit entries, and using a token adds no row."""
    ours = [model for app in ("dashboard", "deployments", "auth") for model in apps.get_app_config(app).get_models()]
    return {model.__name__: model._default_manager.count() for model in ours if model is not AuditEntry}


def add(record: dict[str, Any], status: int) -> None:
    """Count the case by its result."""
    group = "let through" if status < 400 else "refused"
    record[group] = record.get(group, 0) + 1
    record["cases"] = record.get("cases", 0) + 1
