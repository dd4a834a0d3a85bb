"""The gateway's metrics, read as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from mms.gateway.metrics import BUCKET_SECONDS, Metrics


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
