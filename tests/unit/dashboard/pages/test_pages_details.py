"""Detail pages: state, reason of a failure, lineage, and no secrets."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models.operation import Kind, State
from tests.support.html import compact
from tests.support.people import Cast, Lab, make_cast, make_lab, make_operation
from tests.support.workshop import (
    KUBE_CONFIG,
    REGISTRY_PASSWORD,
    SCORING_KEY,
    make_image,
    make_manifest,
    make_model,
    make_service,
)

pytestmark = pytest.mark.django_db
PAGES = ["models", "assets", "manifests", "images", "services", "operations"]


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def url_of(lab: Lab, noun: str) -> str:
    return f"{lab.url}{noun}s/{getattr(lab, noun).pk}/"


@pytest.mark.parametrize("noun", ["model", "manifest", "image", "service", "operation"])
def test_the_lineage_leads_from_every_page_to_all_others(noun: str, lab: Lab, cast: Cast) -> None:
    page = cast.viewer.get(url_of(lab, noun)).text
    for other in ("model", "manifest", "image", "service"):
        if other != noun:
            assert f'href="{url_of(lab, other)}"' in page, other


def test_an_asset_names_what_uses_it(lab: Lab, cast: Cast) -> None:
    page = cast.viewer.get(url_of(lab, "asset")).text
    for other in ("manifest", "image", "service"):
        assert f'href="{url_of(lab, other)}"' in page, other


def test_a_long_lineage_is_shortened_and_links_to_the_rest(lab: Lab, cast: Cast) -> None:
    for number in range(5):
        make_service(make_image(lab.manifest, mms_id=f"i-{number}"), f"copy-{number}")
    page = cast.viewer.get(url_of(lab, "model")).text
    assert f'<a href="{lab.url}services/?model={lab.model.pk}">and 3 more</a>' in page
    assert cast.viewer.get(f"{lab.url}services/?model={lab.model.pk}").context["listing"].found_count == 6


@pytest.mark.parametrize("noun", ["model", "manifest", "image", "service", "asset"])
def test_the_number_of_queries_does_not_grow_with_related_rows(noun: str, lab: Lab, cast: Cast) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as caught:
            assert cast.viewer.get(url_of(lab, noun)).status_code == 200
        return len(caught)

    def grow(first: int, last: int) -> None:
        for number in range(first, last):
            manifest = make_manifest(lab.account, lab.model, mms_id=f"m-{number}")
            manifest.assets.add(lab.asset)
            make_image(lab.manifest, mms_id=f"i-{number}")
            make_service(lab.image, f"s-{number}")
            make_service(make_image(manifest, mms_id=f"j-{number}"), f"t-{number}")
            make_operation(getattr(lab, noun)) if noun != "asset" else None

    grow(0, 5)
    few = queries()
    grow(5, 25)
    assert queries() == few
    assert few <= 24


def test_the_reason_of_a_failure_comes_before_everything_else(lab: Lab, cast: Cast) -> None:
    details = [{"code": "Log", "message": "line one\nline two", "target": ""}]
    failed = make_image(lab.manifest, "second image", mms_id=None)
    make_operation(failed, state=State.FAILED, error_message="No such package.", error_details=details)
    page = cast.scientist.get(f"{lab.url}images/{failed.pk}/").text
    main = page[page.index("<h1>") :]
    assert main.index("No such package.") < main.index('aria-label="Lineage"') < main.index('class="facts"')
    assert "line one\nline two" in page
    assert "/retry/" in page
    assert "/clone/" in page


def test_a_log_stored_line_by_line_is_shown_as_one_block_with_its_indentation(lab: Lab, cast: Cast) -> None:
    lines = ["Traceback:", "  File score.py, line 4", "RuntimeError: no licence"]
    details = [{"code": "Log", "message": line, "target": "service log"} for line in lines]
    failed = make_operation(lab.image, state=State.FAILED, error_message="It does not stay up.", error_details=details)
    page = cast.scientist.get(f"{lab.url}operations/{failed.pk}/").text
    assert "\n".join(lines) in page
    assert page.count("service log") == 1


def test_a_viewer_sees_disabled_buttons_with_the_reason(lab: Lab, cast: Cast) -> None:
    failed = make_operation(lab.image, state=State.FAILED, error_message="No such package.")
    page = cast.viewer.get(f"{lab.url}operations/{failed.pk}/").text
    assert "No such package." in page
    assert '<button class="primary" disabled title="This requires the “Data scientist” role.">' in page


def test_a_failure_followed_by_a_success_is_shown_in_the_history_only(lab: Lab, cast: Cast) -> None:
    make_operation(lab.image, state=State.FAILED, error_message="No such package.")
    make_operation(lab.image)
    page = cast.viewer.get(url_of(lab, "image")).text
    assert 'aria-label="Failure"' not in page
    assert "No such package." in page


def test_a_service_with_an_old_model_version_names_the_newer_one(lab: Lab, cast: Cast) -> None:
    newer = make_model(lab.account, "iris", 2)
    page = cast.scientist.get(url_of(lab, "service")).text
    link = f'<a href="{lab.url}models/{newer.pk}/">iris v2</a>'
    assert f"{link} is available; this service runs an older version of iris." in compact(page)
    assert f"{lab.url}manifests/new/?model={newer.pk}" in page


def test_revisions_are_shown_with_their_images_and_invalid_dates_are_tolerated(lab: Lab, cast: Cast) -> None:
    lab.service.revisions = [
        {"number": 2, "state": "active", "image_id": lab.image.mms_id, "activated_at": "yesterday", "detail": ""},
        {"number": 1, "state": "stopped", "image_id": "unknown", "activated_at": "2026-01-01T10:00:00Z"},
    ]
    lab.service.save()
    page = cast.viewer.get(url_of(lab, "service")).text
    assert "stopped" in page
    assert 'datetime="2026-01-01T10:00:00+00:00"' in page


def test_the_limits_of_a_service_are_shown_with_units(lab: Lab, cast: Cast) -> None:
    lab.service.limits = {"memory": 2 * 1024**3, "temporary": 1024**3, "tasks": 256, "cpus": 1}
    lab.service.save()
    page = compact(cast.viewer.get(url_of(lab, "service")).text)
    assert "2.0 GB of memory, 1.0 GB of temporary files, 256 processes and threads, 1 CPU<" in page.replace(" <", "<")


def test_values_that_the_server_does_not_report_are_labeled(lab: Lab, cast: Cast) -> None:
    bare = make_service(lab.image, "bare", health="", scoring_uri="", state="Succeeded")
    page = cast.viewer.get(f"{lab.url}services/{bare.pk}/").text
    assert "not reported" in page.lower()
    assert "Test console" not in page


def test_a_manifest_shows_its_json_without_access_keys(lab: Lab, cast: Cast) -> None:
    lab.manifest.asset_list[0]["url"] = "https://store.example/score.py?sig=TOPSECRET"
    lab.manifest.save()
    page = cast.viewer.get(url_of(lab, "manifest")).text
    assert "&quot;modelIds&quot;" in page
    assert "https://store.example/score.py?…" in page
    assert "TOPSECRET" not in page


def test_pages_contain_no_secrets(lab: Lab, cast: Cast) -> None:
    lab.model.url = "https://user:TOPSECRET@models.example/iris.pkl?token=TOPSECRET"
    lab.model.save()
    secrets = [KUBE_CONFIG, REGISTRY_PASSWORD, SCORING_KEY, "TOPSECRET"]
    for noun in PAGES:
        one = noun.removesuffix("s")
        for url in (f"{lab.url}{noun}/", url_of(lab, one)):
            page = cast.admin.get(url).text
            assert not [secret for secret in secrets if secret in page], url


def test_htmx_gets_the_panel_or_the_history_alone(lab: Lab, cast: Cast) -> None:
    for part in ("panel", "history"):
        answer = cast.viewer.get(url_of(lab, "service"), headers={"HX-Request": "true", "HX-Target": part})
        assert f'id="{part}"' in answer.text[:200]
        assert "<html" not in answer.text


def test_an_operation_shows_its_times_and_the_operation_it_repeats(lab: Lab, cast: Cast) -> None:
    first = make_operation(lab.image, state=State.FAILED, finished_at=timezone.now() + timedelta(seconds=75))
    again = make_operation(lab.image, retry_of=first)
    assert "took 1 min 15 s" in cast.viewer.get(f"{lab.url}operations/{first.pk}/").text
    assert f'href="{lab.url}operations/{again.pk}/"' in cast.viewer.get(f"{lab.url}operations/{first.pk}/").text
    assert f'href="{lab.url}operations/{first.pk}/"' in cast.viewer.get(f"{lab.url}operations/{again.pk}/").text


def test_the_overview_shows_what_runs_what_is_in_flight_and_what_failed(lab: Lab, cast: Cast) -> None:
    make_operation(lab.image, state=State.FAILED, error_message="No such package.")
    make_operation(lab.service, Kind.UPDATE_SERVICE, State.RUNNING)
    page = cast.viewer.get(lab.url).text
    assert page.index("No such package.") < page.index("<h2>In progress") < page.index("<h2>Services")
    assert "iris-live" in page
    part = cast.viewer.get(lab.url, headers={"HX-Request": "true", "HX-Target": "overview"}).text
    assert part.lstrip().startswith('<div id="overview"')


def test_a_failure_that_was_retried_leaves_the_overview(lab: Lab, cast: Cast) -> None:
    first = make_operation(lab.image, state=State.FAILED, error_message="No such package.")
    make_operation(lab.image, retry_of=first)
    assert "No such package." not in cast.viewer.get(lab.url).text


def test_an_account_without_services_shows_the_next_step(lab: Lab, cast: Cast) -> None:
    lab.service.delete()
    page = cast.scientist.get(lab.url).text
    assert '<li class="next"><h3>Deploy a service</h3>' in compact(page)
    assert '<li class="done"><h3>Build an image</h3>' in compact(page)


def test_every_page_has_a_banner_about_the_server_that_refreshes_itself(lab: Lab, cast: Cast) -> None:
    page = cast.viewer.get(url_of(lab, "model")).text
    assert 'id="trouble"' in page
    assert "cannot be read" not in page
    type(lab.account).objects.update(error="It is out.", error_at=timezone.now())
    part = cast.viewer.get(url_of(lab, "model"), headers={"HX-Request": "true", "HX-Target": "trouble"}).text
    assert part.lstrip().startswith('<div id="trouble"')
    assert "It is out." in part
    assert "<html" not in part
