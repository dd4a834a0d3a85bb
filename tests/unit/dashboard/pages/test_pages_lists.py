"""Lists: search, sorting, filters, pagination, hidden items and the number of queries."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.models import Role
from deployments.models.operation import Kind, State
from tests.support.people import Lab, make_cast, make_lab, make_operation
from tests.support.workshop import (
    make_account,
    make_asset,
    make_image,
    make_manifest,
    make_model,
    make_service,
    sign_in,
)

pytestmark = pytest.mark.django_db
NOUNS = ["models", "assets", "manifests", "images", "services", "operations"]


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def viewer(lab: Lab) -> Client:
    return make_cast(lab.account).viewer


@pytest.fixture
def names(lab: Lab, viewer: Client) -> Callable[[str], list[str]]:
    """Return a function that gets the names in the list of models for a query string."""

    def ask(query: str) -> list[str]:
        return [str(row) for row in viewer.get(f"{lab.url}models/?{query}").context["listing"].rows]

    return ask


def fill(lab: Lab, count: int, first: int = 0) -> None:
    """Create `count` more rows of each kind, with operations."""
    for number in range(first, first + count):
        model = make_model(lab.account, f"filler-{number:03}", tags=["a", "b"])
        make_asset(lab.account, f"asset-{number}")
        manifest = make_manifest(lab.account, model, mms_id=f"m-{number}")
        image = make_image(manifest, mms_id=f"i-{number}")
        service = make_service(image, f"service-{number}", health="healthy")
        for row in (model, manifest, image, service):
            make_operation(row)


def queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as caught:
        assert client.get(url).status_code == 200
    return len(caught)


@pytest.mark.parametrize("noun", [*NOUNS, ""])
def test_a_list_needs_the_same_number_of_queries_at_any_length(noun: str, lab: Lab, viewer: Client) -> None:
    url = f"{lab.url}{noun}/" if noun else lab.url
    fill(lab, 3)
    viewer.get(url)  # the session remembers the account from now on
    few = queries(viewer, url)
    fill(lab, 60, first=3)
    assert queries(viewer, url) == few
    assert few <= 16


def test_every_word_of_a_search_has_to_be_found_somewhere(lab: Lab, names: Callable[[str], list[str]]) -> None:
    make_model(lab.account, "churn", tags=["weekly"], description="gradient boosting")
    assert names("q=weekly+boost") == ["churn v1"]
    assert names("q=weekly+iris") == []
    assert names("q=CHURN") == ["churn v1"]


def test_a_list_is_sorted_by_its_columns_both_ways(lab: Lab, names: Callable[[str], list[str]]) -> None:
    make_model(lab.account, "alpha", 2)
    make_model(lab.account, "alpha", 10)
    assert names("sort=name") == ["alpha v2", "alpha v10", "iris v1"]
    assert names("sort=-name") == ["iris v1", "alpha v10", "alpha v2"]
    assert names("sort=secret_column") == names("")


def test_links_of_a_list_keep_its_filters(lab: Lab, viewer: Client) -> None:
    fill(lab, 60)
    page = viewer.get(f"{lab.url}models/?q=filler&sort=name&page=2")
    assert page.context["listing"].page.number == 2
    assert "?q=filler&amp;sort=name&amp;page=1" in page.text
    assert "?q=filler&amp;sort=-name" in page.text
    assert 'aria-sort="ascending"' in page.text


def test_a_page_beyond_the_end_is_the_last_one(lab: Lab, viewer: Client) -> None:
    fill(lab, 60)
    assert viewer.get(f"{lab.url}models/?page=99").context["listing"].page.number == 3
    assert viewer.get(f"{lab.url}models/?page=x").context["listing"].page.number == 1


def test_states_are_filters_and_several_are_combined_with_or(lab: Lab, names: Callable[[str], list[str]]) -> None:
    failed = make_model(lab.account, "failed", mms_id=None, version=None)
    make_operation(failed, state=State.FAILED)
    flying = make_model(lab.account, "flying", mms_id=None, version=None)
    make_operation(flying, state=State.RUNNING)
    assert names("state=failed") == ["failed"]
    assert names("state=open") == ["flying"]
    assert set(names("state=open&state=failed")) == {"failed", "flying"}
    assert names("state=ready") == ["iris v1"]


def test_a_failure_that_was_retried_is_no_longer_a_failure(lab: Lab, names: Callable[[str], list[str]]) -> None:
    model = make_model(lab.account, "second-try", mms_id=None, version=None)
    make_operation(model, state=State.FAILED)
    make_operation(model, state=State.RUNNING)
    assert names("state=failed") == []


def test_items_removed_from_the_server_are_hidden_and_counted(lab: Lab, viewer: Client) -> None:
    make_model(lab.account, "lost", vanished_at=timezone.now())
    page = viewer.get(f"{lab.url}models/")
    assert "lost" not in page.text
    assert "1 hidden: no longer on the server" in page.text
    assert "lost" in viewer.get(f"{lab.url}models/?state=gone").text


def test_a_filter_shows_how_many_rows_it_hides(lab: Lab, viewer: Client) -> None:
    fill(lab, 3)
    page = viewer.get(f"{lab.url}models/?q=iris")
    assert "3 hidden by search and filters" in page.text
    nothing = viewer.get(f"{lab.url}models/?q=zebra")
    assert "No matches" in nothing.text
    assert "hide all 4" in nothing.text


def test_only_the_newest_version_of_each_name(lab: Lab, names: Callable[[str], list[str]]) -> None:
    make_model(lab.account, "iris", 2)
    make_model(lab.account, "iris", 3, vanished_at=timezone.now())
    assert names("newest=1") == ["iris v2"]


def test_lists_can_be_filtered_by_a_parent(lab: Lab, viewer: Client) -> None:
    fill(lab, 3)
    page = viewer.get(f"{lab.url}services/?model={lab.model.pk}")
    assert [row.name for row in page.context["listing"].rows] == ["iris-live"]
    assert "Model: iris v1" in page.text
    assert viewer.get(f"{lab.url}services/?model=999999").status_code == 404


def test_operations_are_filtered_by_kind_and_found_by_reason(lab: Lab, viewer: Client) -> None:
    make_operation(lab.image, state=State.FAILED, error_message="pip could not find scikit-lern")
    url = f"{lab.url}operations/"
    found = viewer.get(f"{url}?q=scikit-lern").context["listing"].rows
    assert [operation.kind for operation in found] == [Kind.CREATE_IMAGE]
    assert viewer.get(f"{url}?kind=create_service").context["listing"].found_count == 1
    assert viewer.get(f"{url}?kind=nonsense").context["listing"].found_count == 2


def test_htmx_gets_only_the_part_that_changes(lab: Lab, viewer: Client) -> None:
    part = viewer.get(f"{lab.url}models/?q=iris", headers={"HX-Request": "true", "HX-Target": "list"})
    assert part.text.lstrip().startswith('<section class="panel" id="list"')
    assert "<html" not in part.text


def test_a_row_refreshes_itself(lab: Lab, viewer: Client) -> None:
    for noun in ("model", "manifest", "image", "service", "operation"):
        row = getattr(lab, noun)
        htmx = {"HX-Request": "true", "HX-Target": f"{noun}-{row.pk}"}
        part = viewer.get(f"{lab.url}{noun}s/{row.pk}/", headers=htmx)
        assert part.text.lstrip().startswith(f'<tr id="{noun}-{row.pk}"'), noun


@pytest.mark.parametrize("noun", NOUNS)
def test_an_empty_list_shows_the_next_step(noun: str, lab: Lab) -> None:
    empty = make_account("empty")
    scientist = sign_in("ede", empty, Role.SCIENTIST).get(f"/accounts/empty/{noun}/").text
    assert 'class="empty"' in scientist
    assert 'class="button primary"' in scientist
    viewer = sign_in("eve", empty, Role.VIEWER).get(f"/accounts/empty/{noun}/").text
    assert 'class="button primary"' not in viewer


def test_a_list_shows_its_age_and_the_reason(lab: Lab, viewer: Client) -> None:
    lab.account.error, lab.account.error_at = "Connection refused by mms.example.", timezone.now()
    lab.account.models_seen_at = timezone.now() - timedelta(hours=3)
    lab.account.save()
    page = viewer.get(f"{lab.url}models/").text
    assert "Connection refused by mms.example." in page
    assert "Stale, last synced" in page
    assert "3 h ago" in page
