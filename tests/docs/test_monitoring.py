"""Dashboard and alert rules ask for series that exist, by labels they have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.exported import SCRAPED, Series, exported
from tests.docs.pages import page, spans, table
from tests.docs.queries import RULES, SCRAPES, Query, alert_rules, dashboard, panel_queries

SELECTOR = re.compile(
    r"\b(?P<name>(?:gateway|process)_\w+|up)\b(?P<matchers>\{[^}]*\})?(?P<range>\[[^]]+\])?"
)
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
BY = re.compile(r"\bby \(([^)]*)\)")
UP = Series("up", "gauge", SCRAPED)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

EXPRESSIONS = [query.expression for query in panel_queries()] + [rule["expr"] for rule in alert_rules()]


def series(name: str) -> Series:
    found = UP if name == "up" else exported().get(name)
    assert found is not None, f"there is no series {name}"
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    found = [(match, series(match["name"])) for match in SELECTOR.finditer(expression)]
    assert found
    for match, one in found:
        for label, _ in MATCHER.findall(match["matchers"] or ""):
            assert label in one.labels, f"{match['name']} has no label {label}"
        counts = one.kind in ("counter", "histogram")
        assert counts == (match["range"] is not None), f"{match['name']} is a {one.kind}"
    for group in BY.findall(expression):
        for label in re.findall(r"\w+", group):
            assert all(label in one.labels for _, one in found), f"not all of {expression} have {label}"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_values_of_labels_are_those_of_the_pages(expression: str) -> None:
    """`outcome="unkown"` would never be found."""
    described = {spans(row[0])[0]: row[3] for row in table(page("docs/metrics.md"), "metric")}
    for match in SELECTOR.finditer(expression):
        for label, value in MATCHER.findall(match["matchers"] or ""):
            if label not in SCRAPED | {"status"}:
                words = spans(described[series(match["name"]).metric])
                assert set(value.split("|")) <= set(words), (expression, words)


@pytest.mark.parametrize("query", panel_queries(), ids=lambda query: query.panel)
def test_a_legend_names_labels_that_are_left(query: Query) -> None:
    left = {label for group in BY.findall(query.expression) for label in re.findall(r"\w+", group)}
    assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= left


@pytest.mark.parametrize("query", panel_queries(), ids=lambda query: query.panel)
def test_gauges_are_combined_as_the_page_says(query: Query) -> None:
    same, added = combined()
    for match in SELECTOR.finditer(query.expression):
        if series(match["name"]).kind == "gauge" and match["name"].startswith("gateway_"):
            right = ("max",) if match["name"] in same else ("sum", "count")
            assert match["name"] in same | added
            assert query.expression.split()[0].partition("(")[0] in right, query.expression


def test_the_page_says_how_each_gauge_is_combined() -> None:
    same, added = combined()
    gauges = {one.metric for one in exported().values() if one.kind == "gauge"}
    assert same | added == {name for name in gauges if name.startswith("gateway_")}
    assert not same & added


def combined() -> tuple[set[str], set[str]]:
    """Gauges to take the `max` of over processes, and those to take the `sum` of."""
    text = page("docs/metrics.md")
    found = re.search(
        r"so take `max` of them: (.*?)\. These add up, so take `sum`:(.*?)\.\n", text, re.DOTALL
    )
    assert found
    return set(spans(found[1])), set(spans(found[2]))


def test_the_page_names_the_metrics_of_the_process() -> None:
    named = set(re.findall(r"`(process_\w+)`", page("docs/metrics.md")))
    assert named == {name for name in exported() if name.startswith("process_")}


def test_panels_have_their_own_place_and_number() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    target, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = [heading.lower().replace(" ", "-") for heading in HEADING.findall(page(target))]
    assert anchor in headings
    left = {label for group in BY.findall(rule["expr"]) for label in re.findall(r"\w+", group)}
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert shown <= left or rule["expr"].startswith("up{")


def test_each_rule_has_its_line_in_the_runbook() -> None:
    told = [name for row in table(page("docs/operations.md"), "alert rule") for name in spans(row[0])]
    assert sorted(told) == sorted(rule["alert"] for rule in alert_rules())


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in alert_rules()]
    assert len(set(names)) == len(names) > 10


def test_the_example_scrapes_with_a_token_and_loads_the_rules() -> None:
    example = yaml.safe_load(page(SCRAPES))
    (job,) = example["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("pixapi-gateway", "/metrics")
    assert job["authorization"]["type"] == "Bearer"
    assert example["rule_files"] == [RULES.rpartition("/")[2]]
    named = {value for text in EXPRESSIONS for label, value in MATCHER.findall(text) if label == "job"}
    assert named == {job["job_name"]}
