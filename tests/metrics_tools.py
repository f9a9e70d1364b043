"""How do tests read /metrics?"""

from dataclasses import dataclass
from typing import Any

import httpx
from plain_http import NO_TLS
from prometheus_client.parser import text_string_to_metric_families

SeriesName = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Scrape:
    """What one GET of /metrics has brought.

    Attributes:
        families: metrics as dashboards name them, each with its type and help.
        series: values by the name of the sample and its labels.
    """

    text: str
    families: dict[str, tuple[str, str]]
    series: dict[SeriesName, float]

    def sum(self, name: str, **labels: str) -> float:
        """Add up all samples of a metric that have these labels; there has to be one."""
        found = [
            value
            for (sample, having), value in self.series.items()
            if sample == f"video_gateway_{name}" and having >= frozenset(labels.items())
        ]
        assert found, f"no sample of {name} has {labels}"
        return sum(found)

    def has(self, name: str) -> bool:
        return any(sample == f"video_gateway_{name}" for sample, _ in self.series)


async def scrape(ops_port: int) -> Scrape:
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=20) as client:
        answer = await client.get(f"http://127.0.0.1:{ops_port}/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


def read(text: str) -> Scrape:
    families: dict[str, tuple[str, str]] = {}
    series: dict[SeriesName, Any] = {}
    for family in text_string_to_metric_families(text):
        suffix = "_total" if family.type == "counter" else ""
        families[f"{family.name}{suffix}"] = (family.type, family.documentation)
        for sample in family.samples:
            series[sample.name, frozenset(sample.labels.items())] = sample.value
    return Scrape(text, families, series)
