"""What do the dashboards look like, with the figures of a running Prometheus?

    python tests/dashboard_pictures.py http://127.0.0.1:9091 FOLDER [--job NAME] [--hours 0.1]

Writes each dashboard as HTML into a folder and, with chromium, as PNG; says which panels are empty.
Grafana itself is not needed, and not imitated to the pixel.
"""

import argparse
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import httpx
from dashboard_drawing import draw
from dashboard_lines import Series
from grafana_tools import boards, fill, panels
from rich.console import Console

POINTS, FEWEST_BARS = 200, 10
SCRAPE_SECONDS = 15
ROW_PIXELS, GAP_PIXELS, PAGE_PIXELS = 30, 6, 1680
CHROMIUM_SECONDS = 60
STYLE = """
body{background:#111217;color:#ccccdc;font:12px DejaVu Sans,sans-serif;margin:10px}
#grid{display:grid;grid-template-columns:repeat(24,1fr);grid-auto-rows:30px;gap:6px}
.panel{background:#181b1f;border:1px solid #2c3235;padding:4px 8px;overflow:hidden;display:flex;
flex-direction:column}.panel h4{margin:0 0 2px;font-weight:500}
h2 small{color:#8e8e8e;font-size:13px}
.row{padding:8px;font-size:14px}.stat{flex:1;display:flex;align-items:center;font-size:28px;
justify-content:center;color:#111}.none{flex:1;display:flex;align-items:center;color:#8e8e8e;
justify-content:center}.bar,.band{display:flex;gap:6px;align-items:center;margin:1px 0}
.bar span,.band span{width:34%;text-align:right}.bar div{flex:1;background:#22252b}
.bar i{display:block;height:14px}.bar b{width:18%}.band div{flex:1;display:flex}
.band i{height:20px}svg{width:100%;flex:1;min-height:0}svg text{fill:#8e8e8e;font-size:11px}
p{margin:0;display:flex;gap:2px 10px;flex-wrap:wrap}em{color:#fff;font-style:normal}
table{border-collapse:collapse;width:100%}td,th{text-align:left;border-bottom:1px solid #2c3235;
padding:2px 6px}
"""


def main() -> None:
    """Draw every dashboard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("prometheus", help="its address, such as http://127.0.0.1:9091")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--job", default="video-gateway", help="the gateway's job")
    parser.add_argument("--at", type=float, default=time.time(), help="Unix time; now without it")
    parser.add_argument("--hours", type=float, help="what is shown; each board's own without it")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    with httpx.Client(base_url=asked.prometheus, timeout=60) as prometheus:
        for name, board in boards().items():
            hours = asked.hours or _hours(board["time"]["from"].removeprefix("now-"))
            span = (asked.at - 3600 * hours, asked.at)
            page, empty = _page(prometheus, board, job=asked.job, span=span)
            path = asked.folder / f"{name}.html"
            path.write_text(page, encoding="utf-8")
            _photograph(path, board)
            console.print(f"{path}: empty panels: {', '.join(empty) or 'none'}")


def _page(
    prometheus: httpx.Client, board: dict[str, Any], *, job: str, span: tuple[float, float]
) -> tuple[str, list[str]]:
    found, empty = [], []
    for panel in board["panels"]:
        place = panel["gridPos"]
        style = (
            f"grid-column:{place['x'] + 1}/span {place['w']};"
            f"grid-row:{place['y'] + 1}/span {place['h']}"
        )
        title = escape(fill(panel["title"], {"project": "All"}))
        if panel["type"] == "row":
            found.append(f"<div class=row style='{style}'>▾ {title}</div>")
            continue
        own = span
        if "timeFrom" in panel:
            own = (span[1] - 3600 * _hours(panel["timeFrom"]), span[1])
        series = list(_ask(prometheus, panel, job=job, span=own))
        if not series:
            empty.append(panel["title"])
        inside = draw(panel, series, own)
        hint = escape(panel["description"], quote=True)
        found.append(
            f'<div class=panel style="{style}" title="{hint}"><h4>{title}</h4>{inside}</div>'
        )
    heading = f"{escape(board['title'])} <small>{escape(board['description'])}</small>"
    grid = "".join(found)
    style = f"<meta charset=utf-8><style>{STYLE}</style>"
    return f"<!doctype html>{style}<h2>{heading}</h2><div id=grid>{grid}</div>", empty


def _hours(text: str) -> int:
    return int(text.removesuffix("h"))


def _ask(
    prometheus: httpx.Client, panel: dict[str, Any], *, job: str, span: tuple[float, float]
) -> Iterable[Series]:
    least = int((panel.get("interval") or "0m").removesuffix("m")) * 60
    seconds = span[1] - span[0]
    # A look of minutes has no room for the bars of a day.
    least = min(least, math.ceil(seconds / FEWEST_BARS))
    step = max(math.ceil(seconds / POINTS), least, SCRAPE_SECONDS)
    values = {
        "job": job,
        "__interval": f"{step}s",
        "__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s",
        "__range": f"{int(span[1] - span[0])}s",
        "__range_s": str(int(span[1] - span[0])),
    }
    for target in panel["targets"]:
        query = {"query": fill(target["expr"], values)}
        if panel["type"] in {"timeseries", "state-timeline"}:
            times = {"start": span[0], "end": span[1], "step": step}
            answer = prometheus.get("/api/v1/query_range", params={**query, **times})
        else:
            answer = prometheus.get("/api/v1/query", params={**query, "time": span[1]})
        answer.raise_for_status()
        for one in answer.json()["data"]["result"]:
            labels = {name: value for name, value in one["metric"].items() if name != "__name__"}
            points = one.get("values") or [one["value"]]
            yield Series(
                target["refId"],
                labels,
                _name(target["legendFormat"], labels),
                [(float(moment), float(value)) for moment, value in points],
            )


def _name(legend: str, labels: dict[str, str]) -> str:
    if legend == "__auto":
        return ", ".join(labels.values())
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)


def _photograph(path: Path, board: dict[str, Any]) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        return
    rows = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels(board))
    height = rows * (ROW_PIXELS + GAP_PIXELS) + 100
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={PAGE_PIXELS},{height}", f"--screenshot={path.with_suffix('.png')}"]
    subprocess.run(
        [*command, path.resolve().as_uri()],
        check=True,
        capture_output=True,
        timeout=CHROMIUM_SECONDS,
    )


if __name__ == "__main__":
    main()
