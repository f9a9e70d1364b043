"""Which files do the dashboards become? Run `python -m grafana.build` after every change here."""

from pathlib import Path
from typing import Final

from grafana.boards import to_json
from grafana.overview import OVERVIEW
from grafana.spend import SPEND
from grafana.videos import VIDEOS

FOLDER: Final = Path(__file__).with_name("dashboards")


def dashboard_files() -> dict[Path, str]:
    """Return the text of every file."""
    return {FOLDER / f"{one.name}.json": to_json(one) for one in (OVERVIEW, SPEND, VIDEOS)}


if __name__ == "__main__":
    for path, text in dashboard_files().items():
        path.write_text(text, encoding="utf-8")
