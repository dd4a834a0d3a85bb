"""The gateway's metrics, read as Prometheus reads them."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mms.gateway.metrics import BUCKET_SECONDS, MAX_SERVICES, Metrics
from tests.support import loops


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_prometheus_can_read_what_was_counted() -> None:
    metrics = Metrics()
    for status, seconds in ((200, 0.003), (200, 0.3), (404, 0.003), (503, 40.0)):
        metrics.observe("iris", status, seconds)
    found = samples(metrics)
    assert found["mms_gateway_requests_total", "iris", "200"] == 2
    assert found["mms_gateway_errors_total", "iris", "client"] == 1
    assert found["mms_gateway_errors_total", "iris", "server"] == 1
    assert found["mms_gateway_request_seconds_bucket", "iris", "0.005"] == 2
    assert found["mms_gateway_request_seconds_bucket", "iris", "30.0"] == 3
    assert found["mms_gateway_request_seconds_bucket", "iris", "+Inf"] == 4
    assert found["mms_gateway_request_seconds_count", "iris"] == 4
    assert len([name for name, *_ in found if name.endswith("_bucket")]) == len(BUCKET_SECONDS) + 1


def test_families_have_a_type_and_a_description() -> None:
    families = {family.name: family for family in text_string_to_metric_families(Metrics().render().decode())}
    types = {name: family.type for name, family in families.items()}
    assert types == {
        "mms_gateway_requests": "counter",
        "mms_gateway_errors": "counter",
        "mms_gateway_request_seconds": "histogram",
    }
    assert all(family.documentation for family in families.values())


def test_deleted_services_are_dropped() -> None:
    metrics = Metrics()
    metrics.observe("iris", 200, 0.1)
    metrics.observe("", 404, 0.1)
    metrics.render(lambda _: False)
    assert {labels[0] for _, *labels in samples(metrics)} == {""}


def test_processes_with_one_folder_add_up_and_continue_their_counters(tmp_path: Path) -> None:
    async def count(metrics: Metrics, requests: int) -> None:
        for _ in range(requests):
            metrics.observe("iris", 200, 0.1)
        metrics.flush()

    first, second = Metrics(tmp_path), Metrics(tmp_path)
    loops.run(count(first, 2))
    loops.run(count(second, 3))
    requests, seconds = ("mms_gateway_requests_total", "iris", "200"), ("mms_gateway_request_seconds_sum", "iris")
    for metrics in (first, second):
        assert (samples(metrics)[requests], round(samples(metrics)[seconds], 6)) == (5, 0.5)
    first.close()
    third = Metrics(tmp_path)  # in the place of the first
    loops.run(count(third, 1))
    assert samples(third)[requests] == samples(second)[requests] == 6
    assert len(list(tmp_path.iterdir())) == 2


def test_records_of_deleted_services_are_used_again() -> None:
    metrics = Metrics()
    for number in range(MAX_SERVICES + 10):
        metrics.observe(f"svc-{number}", 200, 0.1)
    assert samples(metrics)["mms_gateway_requests_total", "", "200"] == 11, "no more room: counted as unknown"
    metrics.render(lambda name: name == "svc-7")
    metrics.observe("new", 200, 0.1)
    found = samples(metrics)
    assert found["mms_gateway_requests_total", "new", "200"] == found["mms_gateway_requests_total", "svc-7", "200"] == 1


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 5000])
def test_a_damaged_file_or_an_unwritable_folder_is_tolerated(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.counters").write_bytes(content)
    metrics = Metrics(tmp_path)
    metrics.render()
    (tmp_path / "file").touch()
    alone = Metrics(tmp_path / "file")
    alone.observe("iris", 200, 0.1)
    assert samples(alone)["mms_gateway_requests_total", "iris", "200"] == 1
