"""How does Grafana write a figure, and which colour does it give it?"""

import math
from typing import Any

COLOURS = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "red": "#f2495c",
    "blue": "#5794f2",
    "light-blue": "#8ab8ff",
    "orange": "#ff9830",
    "purple": "#b877d9",
    "text": "#8e8e8e",
    "transparent": "none",
}
_SCALES = {
    "short": (1000, ("", "K", "Mil", "Bil")),
    "bytes": (1024, ("B", "KiB", "MiB", "GiB", "TiB")),
    "Bps": (1000, ("B/s", "kB/s", "MB/s", "GB/s")),
}
_PLAIN = {
    "currencyUSD": ("$", 1, ""),
    "locale": ("", 1, ""),
    "percentunit": ("", 100, "%"),
    "reqps": ("", 1, " req/s"),
    "ops": ("", 1, " ops/s"),
    "suffix:/min": ("", 1, "/min"),
    "suffix:/h": ("", 1, "/h"),
}
_DURATIONS = ((86400, "days"), (3600, "hours"), (60, "mins"), (1, "s"), (0.001, "ms"))
UNITS = {*_SCALES, *_PLAIN, "s"}


def figure(panel: dict[str, Any], value: float) -> str:
    """Return a value as a panel shows it: a word that stands for it, or with its unit."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", ()):
        if found := mapping["options"].get(f"{value:g}"):
            return str(found["text"])
    return with_unit(value, defaults["unit"], defaults.get("decimals"))


def with_unit(value: float, unit: str, decimals: float | None = None) -> str:
    """Return a value with its unit; raises KeyError for one that is not among UNITS."""
    if math.isnan(value):
        return "NaN"
    if unit == "s":
        size, name = next((one for one in _DURATIONS if abs(value) >= one[0]), _DURATIONS[-1])
        return f"{_digits(value / size, decimals)} {name}"
    if unit in _SCALES:
        base, names = _SCALES[unit]
        power = next((one for one in range(len(names) - 1, 0, -1) if abs(value) >= base**one), 0)
        return f"{_digits(value / base**power, decimals)} {names[power]}".strip()
    before, factor, after = _PLAIN[unit]
    return f"{before}{_digits(value * factor, decimals)}{after}"


def colour_of(panel: dict[str, Any], value: float) -> str:
    """Return the colour of the highest threshold that a value has reached."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [one for one in steps if one["value"] is None or value >= one["value"]]
    return COLOURS[reached[-1]["color"]]


def _digits(value: float, decimals: float | None) -> str:
    if decimals is not None:
        return f"{value:,.{int(decimals)}f}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
