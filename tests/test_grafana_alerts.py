"""Do the alerts ring when they must, and is there a runbook for each?"""

import re
from collections import Counter
from pathlib import Path

import click
import pytest
import yaml
from grafana_tools import GRAFANA, ROOT, boards, panel_queries, rules, selectors
from prometheus_tools import promtool

from gateway.cli.root import main

RUNBOOKS = (GRAFANA / "runbooks.md").read_text(encoding="utf-8")
ALERTS = {rule.alert: rule for rule in rules() if rule.alert}


def test_every_rule_keeps_gateways_apart() -> None:
    for rule in rules():
        for selector in selectors(rule.expr):
            for node in selector.aggregations:
                kept = node.modifier.labels if node.modifier else []
                assert "job" in kept, (rule.alert, rule.record)


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
    titles = {query.panel["title"] for query in panel_queries()}
    assert set(re.findall(r'"([^"]+)"', RUNBOOKS.replace("\n", " "))) <= titles


def test_runbooks_and_panels_name_commands_that_exist() -> None:
    texts = [RUNBOOKS, *(query.panel["description"] for query in panel_queries())]
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


async def test_prometheus_accepts_what_the_readme_shows(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(rule_files.*?)```", readme, re.DOTALL)
    config = tmp_path / "prometheus.yml"
    config.write_text(shown.replace("/path/to/video-gateway", str(ROOT)), encoding="utf-8")
    rules_found = len(list((GRAFANA / "alerts").glob("*.yml")))
    code, said = await promtool("check", "config", str(config))
    assert (code, f"{rules_found} rule files found" in said) == (0, True), said


async def test_prometheus_accepts_the_rules() -> None:
    code, said = await promtool("check", "rules", *map(str, GRAFANA.glob("alerts/*.yml")))
    assert code == 0, said


@pytest.mark.parametrize(
    "path", sorted((GRAFANA / "alerts" / "tests").glob("*.yml")), ids=lambda path: path.stem
)
async def test_alerts_ring_when_they_must_and_only_then(path: Path) -> None:
    code, said = await promtool("test", "rules", str(path))
    assert (code, "SUCCESS" in said) == (0, True), said
