"""Do the dashboards and alerts hold what they promise?"""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import click
import promql_parser
import pytest
import yaml
from grafana_tools import (
    GRAFANA,
    PREFIX,
    ROOT,
    Selector,
    boards,
    documented,
    fill,
    metrics_used,
    panel_queries,
    panels,
    rules,
    selectors,
)

from gateway.cli.root import main
from grafana.build import dashboard_files

RUNBOOKS = (GRAFANA / "runbooks.md").read_text(encoding="utf-8")
KNOWN = documented()
ALERTS = {rule.alert: rule for rule in rules() if rule.alert}
RATES = {"rate", "increase", "irate"}
EDGES = {"deriv", "delta", "changes", "predict_linear", "last_over_time"}
COUNTED = re.compile(r".*_(total|bucket|count|sum)")
SHOWN = [(name, panel) for name, board in boards().items() for panel in panels(board)]


def _promtool(*arguments: str | Path) -> str:
    tool = shutil.which("promtool")
    assert tool is not None, "promtool is missing: apt-get install prometheus"
    done = subprocess.run(
        [tool, *map(str, arguments)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _functions(selector: Selector) -> list[str]:
    return [node.func.name for node in selector.above if isinstance(node, promql_parser.Call)]


def _aggregations(selector: Selector) -> list[Any]:
    return [node for node in selector.above if isinstance(node, promql_parser.AggregateExpr)]


def _asked() -> list[tuple[str, Selector]]:
    return [(where, one) for where, found in metrics_used().items() for one in found]


def test_the_files_are_what_the_builder_makes() -> None:
    made = dashboard_files()
    assert sorted(made) == sorted((GRAFANA / "dashboards").iterdir())
    stale = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python -m grafana.build"


@pytest.mark.parametrize("name", list(boards()))
def test_a_dashboard_is_found_from_the_others_and_stays_with_the_same_gateway(name: str) -> None:
    board = boards()[name]
    assert board["uid"] == f"video-gateway-{name}"
    assert board["tags"] == ["video-gateway"]
    assert board["refresh"] == "30s"
    assert board["graphTooltip"] == 1
    (link,) = board["links"]
    assert (link["tags"], link["includeVars"], link["keepTime"]) == (["video-gateway"], True, True)
    variables = [one["name"] for one in board["templating"]["list"]]
    assert variables[:3] == ["datasource", "job", "instance"]
    assert {note["name"] for note in board["annotations"]["list"]} == {"Starts", "Alerts"}
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", list(boards()))
def test_every_variable_but_the_data_source_is_asked_for_within_those_before(name: str) -> None:
    before: list[str] = []
    for variable in boards()[name]["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["datasource"]["uid"] == "${datasource}"
            assert variable["name"] == "job" or 'job=~"$job"' in variable["query"]
        used = re.findall(r"\$(\w+)", str(variable["query"]))
        assert set(used) <= set(before)
        before.append(variable["name"])


def test_every_panel_says_to_a_stranger_what_it_shows() -> None:
    for name, panel in SHOWN:
        where = f"{name}: {panel['title']}"
        assert panel["title"], where
        assert len(panel["description"]) > 40, where
        assert panel["description"].endswith("."), where
        assert panel["targets"], where
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], where
        assert defaults["noValue"], where
        assert defaults["thresholds"]["steps"][0]["value"] is None, where
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, where


def test_no_title_stands_twice_below_one_heading() -> None:
    for board in boards().values():
        heading, titles = "", Counter[tuple[str, str]]()
        for panel in board["panels"]:
            if panel["type"] == "row":
                heading = panel["title"]
            titles[heading, panel["title"]] += 1
        assert [title for title, count in titles.items() if count > 1] == []


def test_panels_fill_the_grid_and_do_not_overlap() -> None:
    for board in boards().values():
        cells = Counter[tuple[int, int]]()
        for panel in board["panels"]:
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                cells.update((x, y) for y in range(place["y"], place["y"] + place["h"]))
        assert set(cells.values()) == {1}
        rows = max(y for _, y in cells) + 1
        assert set(cells) == {(x, y) for x in range(24) for y in range(rows)}


def test_every_query_is_promql_about_the_chosen_gateway() -> None:
    for query in panel_queries({"job": "one", "instance": "two"}):
        found = selectors(query.expr)
        assert found or "time()" in query.expr, query.title
        for selector in found:
            assert selector.matchers.get("job") == "one", (query.title, selector.name)
            if selector.name.startswith(PREFIX):
                assert selector.matchers.get("instance") == "two", (query.title, selector.name)


def test_every_variable_in_a_query_or_title_is_one() -> None:
    for name, board in boards().items():
        known = {one["name"] for one in board["templating"]["list"]}
        known |= {"__rate_interval", "__range", "__range_s", "__interval"}
        for panel in board["panels"]:
            texts = [panel["title"], *(one["expr"] for one in panel.get("targets", ()))]
            for text in texts:
                assert set(re.findall(r"\$\{?(\w+)", text)) <= known, (name, panel["title"])


def test_every_label_in_a_legend_is_in_its_query() -> None:
    for query in panel_queries():
        for label in re.findall(r"{{(\w+)}}", query.legend):
            assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", query.expr), query.title


def test_every_metric_asked_for_is_one_that_the_gateway_has() -> None:
    for where, selector in _asked():
        assert selector.name in KNOWN or ":" in selector.name, (where, selector.name)


def test_windows_are_grafanas_and_never_fixed() -> None:
    for query in (one for _, panel in SHOWN for one in panel["targets"]):
        windows = re.findall(r"\[([^]]+)\]", query["expr"])
        assert set(windows) <= {"$__rate_interval", "$__range", "$__range:$__interval"}, query


def test_counters_are_only_ever_rated() -> None:
    for where, selector in _asked():
        rated = set(_functions(selector)) & RATES
        born = where in {"VideoGatewayAlarm", "VideoGatewayContentLost"}
        assert bool(COUNTED.fullmatch(selector.name)) == bool(rated) or born, (where, selector.name)


def test_what_the_records_say_is_never_summed_over_replicas() -> None:
    for where, selector in _asked():
        if KNOWN.get(selector.name) != "same" or ": $" in where:
            continue
        aggregations = _aggregations(selector)
        assert aggregations, (where, selector.name)
        nearest = aggregations[-1]
        assert str(nearest.op) in {"max", "min"}, (where, selector.name)
        kept = nearest.modifier.labels if nearest.modifier else []
        assert not {"instance", "pod"} & set(kept), (where, selector.name)


def test_every_rule_keeps_gateways_apart() -> None:
    for rule in rules():
        for selector in selectors(rule.expr):
            for node in _aggregations(selector):
                assert "job" in node.modifier.labels, (rule.alert, rule.record)


def test_what_a_rule_records_is_used_and_the_reverse() -> None:
    recorded = {rule.record for rule in rules() if rule.record}
    used = {one.name for rule in rules() for one in selectors(rule.expr) if ":" in one.name}
    assert used == recorded
    assert all(re.fullmatch(r"\w+:video_gateway_\w+:\w+", name) for name in recorded)


@pytest.mark.parametrize("name", list(ALERTS))
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule.labels["severity"] in {"critical", "warning", "info"}
    assert set(rule.annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert rule.annotations["runbook_url"] == f"grafana/runbooks.md#{name.lower()}"
    uids = {board["uid"] for board in boards().values()}
    board = re.fullmatch(
        r"/d/([\w-]+)\?var-job={{ \$labels\.job }}", rule.annotations["dashboard_url"]
    )
    assert board is not None
    assert board[1] in uids


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = re.split(r"^### ", RUNBOOKS, flags=re.MULTILINE)
    found = dict(section.split("\n", 1) for section in sections[1:])
    assert list(found) == list(dict.fromkeys(found))
    assert sorted(found) == sorted(ALERTS)
    parts = [
        "**What it means.**",
        "**What callers see.**",
        "**Find out.**",
        "**Do.**",
        "**Ignore it**",
    ]
    for name, text in found.items():
        assert [text.count(part) for part in parts] == [1] * 5, name


def test_runbooks_name_panels_that_exist() -> None:
    titles = {panel["title"] for _, panel in SHOWN}
    assert set(re.findall(r'"([^"]+)"', RUNBOOKS.replace("\n", " "))) <= titles


def test_runbooks_and_panels_name_commands_that_exist() -> None:
    texts = [RUNBOOKS, *(panel["description"] for _, panel in SHOWN)]
    named = set(re.findall(r"`video-gateway ([a-z -]+)`", "\n".join(texts).replace("\n", " ")))
    assert len(named) > 20
    for words in named:
        command: click.Command = main
        for word in words.split():
            assert isinstance(command, click.Group), words
            assert word in command.commands, words
            command = command.commands[word]
        assert not isinstance(command, click.Group), words


def test_runbooks_use_words_that_are_explained_somewhere() -> None:
    known = (ROOT / "README.md").read_text(encoding="utf-8")
    known += "".join(query.expr + query.panel["description"] for query in panel_queries())
    words = set(re.findall(r"`([a-z]+_[a-z_]+)`", RUNBOOKS))
    assert {word for word in words if word not in known} == set()


def test_every_alert_is_shown_to_ring_and_not_to_ring() -> None:
    seen = Counter[tuple[str, bool]]()
    for path in (GRAFANA / "alerts" / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for check in case["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)"', check["expr"])
                assert name is not None
                seen[name[1], bool(check["exp_samples"])] += 1
    assert set(seen) == {(name, rings) for name in ALERTS for rings in (True, False)}


def test_prometheus_accepts_what_the_readme_shows(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(rule_files.*?)```", readme, re.DOTALL)
    config = tmp_path / "prometheus.yml"
    config.write_text(shown.replace("/path/to/video-gateway", str(ROOT)), encoding="utf-8")
    rules_found = len(list((GRAFANA / "alerts").glob("*.yml")))
    assert f"{rules_found} rule files found" in _promtool("check", "config", config)


def test_prometheus_accepts_the_rules() -> None:
    _promtool("check", "rules", *sorted((GRAFANA / "alerts").glob("*.yml")))


@pytest.mark.parametrize(
    "path", sorted((GRAFANA / "alerts" / "tests").glob("*.yml")), ids=lambda path: path.stem
)
def test_alerts_ring_when_they_must_and_only_then(path: Path) -> None:
    assert "SUCCESS" in _promtool("test", "rules", path)


def test_provisioning_finds_the_dashboards() -> None:
    (provider,) = yaml.safe_load(
        (GRAFANA / "provisioning/dashboards/video-gateway.yml").read_text(encoding="utf-8")
    )["providers"]
    assert provider["type"] == "file"
    (source,) = yaml.safe_load(
        (GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    )["datasources"]
    assert source["type"] == "prometheus"


def test_a_variable_that_is_not_known_stays_in_an_expression() -> None:
    assert fill('up{a=~"$job"}[$__rate_interval] $other') == 'up{a=~"video-gateway"}[1m] $other'
