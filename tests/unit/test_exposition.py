"""One page of several workers' pages."""

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.exposition import labelled, merged
from gateway.telemetry import Metrics

ODD = 'a "b" {c} \\ d\n# HELP e'


def page(paid: int) -> str:
    metrics = Metrics()
    metrics.requests.labels("/v1/tasks/{id}", "GET", "200").inc(paid)
    metrics.upstream_key_rests.labels(ODD, "paid").set(1)
    metrics.own_seconds.observe(0.02)
    metrics.paid_in_flight.set(paid)
    return generate_latest(metrics.registry).decode()


def test_every_series_of_every_worker_is_there_once_with_its_worker() -> None:
    pages = {1: page(5), 0: page(2)}
    families = list(text_string_to_metric_families(merged(pages)))
    assert len({family.name for family in families}) == len(families)
    together = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    alone = {
        (sample.name, frozenset({**sample.labels, "worker": str(worker)}.items())): sample.value
        for worker, text in pages.items()
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert together == alone
    kinds = {family.name: (family.type, family.documentation) for family in families}
    assert kinds == {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(pages[0])
    }


def test_a_family_that_only_one_worker_has_is_kept() -> None:
    more = "# HELP extra Extra.\n# TYPE extra gauge\nextra 1.0\n"
    text = merged({0: page(1), 3: page(1) + more})
    assert text.endswith('# HELP extra Extra.\n# TYPE extra gauge\nextra{worker="3"} 1.0\n')
    assert text.count("# HELP gateway_own_seconds The") == 1


def test_labels_are_added_before_what_is_there() -> None:
    assert labelled("name 1.0", 0) == 'name{worker="0"} 1.0'
    assert labelled('name{a="{ }"} 1e+06', 7) == 'name{worker="7",a="{ }"} 1e+06'
