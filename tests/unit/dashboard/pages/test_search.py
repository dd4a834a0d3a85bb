"""Search ignores the case of all letters, in lists, pickers and the audit log."""

from typing import Any

import pytest
from django.db.models import QuerySet

from dashboard.audit.models import AuditEntry
from dashboard.audit.record import record_entry
from dashboard.catalog.lists.search import fold
from deployments.models import RegisteredModel
from tests.support.people import make_cast, make_lab
from tests.support.workshop import make_model

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Modèle d'ÉTÉ", "été"),
        ("modèle d'été", "ÉTÉ"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("Привет", "ПРИВЕТ"),
        ("Straße", "STRAßE"),
        ("e\u0301te\u0301", "ÉTÉ"),
        ("50% é_x", "% É_"),
        ("plain ASCII", "ascii"),
    ],
)
def test_a_word_is_found_whatever_the_case_of_its_letters(live_redis: Any, text: str, word: str) -> None:
    lab = make_lab()
    found = make_model(lab.account, name="found", description=text)
    make_model(lab.account, name="other", description="50 e-x ete")
    page = make_cast(lab.account).viewer.get(f"{lab.url}models/", {"q": word}).text
    assert f"/models/{found.pk}/" in page
    assert ">other<" not in page


def matching(rows: QuerySet[Any], word: str) -> list[str]:
    return list(rows.filter(description__has_word=word).values_list("name", flat=True))


def test_wildcards_in_a_word_are_letters(live_redis: Any) -> None:
    lab = make_lab()
    make_model(lab.account, name="percent", description="É%É")
    make_model(lab.account, name="letters", description="ÉxÉ")
    assert matching(RegisteredModel.objects.all(), "é%é") == ["percent"]
    assert matching(RegisteredModel.objects.all(), "é_é") == []


def test_the_audit_log_is_searched_the_same_way() -> None:
    record_entry("sign_in", actor="ÉLODIE")
    assert AuditEntry.objects.filter(actor__has_word="élodie").exists()


def test_folding_is_stable() -> None:
    for text in ("ẞß", "İ", "ſ", "ﬁ", "Ⅷ", ""):
        assert fold(fold(text)) == fold(text)
    assert fold(None) is None
