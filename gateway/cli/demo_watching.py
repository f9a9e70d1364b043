"""How is the demo watched with a Prometheus, and a Grafana, of one's own?"""

from pathlib import Path
from typing import Final

# In a checkout; a package that was installed without it has no rules to show.
RULES: Final = Path(__file__).parents[2] / "grafana" / "alerts"
_CONFIG: Final = """\
global:
  scrape_interval: 5s
  evaluation_interval: 5s
{rules}scrape_configs:
  - job_name: video-gateway
    static_configs:
      - targets: ["127.0.0.1:{ops_port}"]
"""
_TOLD: Final = """\
Metrics: http://127.0.0.1:{ops_port}/metrics. With a Prometheus of your own:

prometheus --config.file={config} --storage.tsdb.path={data} --web.listen-address=127.0.0.1:9091

Grafana finds it, and the dashboards, by the files in grafana/provisioning of the repository.
"""


def write_config(folder: Path, *, ops_port: int, rules: Path = RULES) -> str:
    """Write a configuration of Prometheus into a folder; return what a person is told."""
    config = folder / "prometheus.yml"
    has_rules = any(rules.glob("*.yml"))
    files = f"rule_files: ['{rules}/*.yml']\n" if has_rules else ""
    config.write_text(_CONFIG.format(rules=files, ops_port=ops_port), encoding="utf-8")
    return _TOLD.format(ops_port=ops_port, config=config, data=folder / "prometheus")
