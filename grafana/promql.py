"""How is each kind of metric asked for?

A counter counts in one process: it is rated first and summed over the replicas afterwards. What is
read from the records is the same in every replica: the maximum is taken, never the sum. Windows are
Grafana's: `$__rate_interval` for a line, `$__range` for one figure about the time shown.
"""

from typing import Final

PREFIX: Final = "video_gateway_"
# One job is one gateway: replicas that share a database. Instances are its replicas.
SELECTED: Final = 'job=~"$job", instance=~"$instance"'
# Seconds in UTC, for budgets end and begin there.
DAY_SECONDS: Final = 86_400


def metric(name: str, matchers: str = "") -> str:
    """Select one metric of the chosen gateway."""
    return f"{PREFIX}{name}{{{SELECTED}{matchers and f', {matchers}'}}}"


def per_second(name: str, matchers: str = "", *, by: str = "") -> str:
    """How often it happens, over all replicas."""
    return f"{_over('sum', by)} (rate({metric(name, matchers)}[$__rate_interval]))"


def per_minute(name: str, matchers: str = "", *, by: str = "") -> str:
    """How often, for what is too rare to be read per second."""
    return f"60 * {per_second(name, matchers, by=by)}"


def per_hour(name: str, matchers: str = "", *, by: str = "") -> str:
    """How often, for what is rarer still."""
    return f"3600 * {per_second(name, matchers, by=by)}"


def in_bar(name: str, matchers: str = "", *, by: str = "") -> str:
    """How often it happened in the time of one bar, for what is hardly ever."""
    return f"{_over('sum', by)} (increase({metric(name, matchers)}[$__rate_interval]))"


def in_range(name: str, matchers: str = "", *, by: str = "") -> str:
    """How often it happened in the time shown; 0 where it never did."""
    counted = f"{_over('sum', by)} (increase({metric(name, matchers)}[$__range]))"
    return counted if by else f"({counted} or vector(0))"


def quantile(level: float, name: str, matchers: str = "", *, by: str = "") -> str:
    """A quantile of a histogram over all replicas."""
    return _quantile(level, name, matchers, by=by, window="$__rate_interval")


def quantile_in_range(level: float, name: str, matchers: str = "", *, by: str = "") -> str:
    """A quantile of a histogram over all replicas, of all that happened in the time shown."""
    return _quantile(level, name, matchers, by=by, window="$__range")


def recorded(name: str, matchers: str = "", *, by: str = "") -> str:
    """What the records say, from whichever replica was scraped."""
    return f"{_over('max', by)} ({metric(name, matchers)})"


def growth_per_hour(name: str, matchers: str = "", *, by: str = "") -> str:
    """How fast a sum grows that the records keep; corrected downward, it shrinks."""
    return f"3600 * {_over('max', by)} (deriv({metric(name, matchers)}[$__rate_interval]))"


def growth_per_hour_in_range(name: str, matchers: str = "") -> str:
    """The same on average over the time shown, through which few replicas may have lived."""
    return f"3600 * delta({recorded(name, matchers)}[$__range:$__interval]) / $__range_s"


def per_replica(name: str, matchers: str = "", *, by: str = "instance", fold: str = "max") -> str:
    """A gauge of each replica by itself."""
    return f"{_over(fold, by)} ({metric(name, matchers)})"


def share(part: str, whole: str) -> str:
    """A part of a whole, 0 without such a part, and nothing at all without a whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def budget_used(matchers: str = "", *, by: str) -> str:
    """Which part of each budget is spent or held."""
    taken = [recorded(f"ledger_{name}_usd", matchers, by=by) for name in ("spent", "held")]
    return f"({' + '.join(taken)}) / {recorded('ledger_budget_usd', matchers, by=by)}"


def age(moment: str) -> str:
    """Seconds since a moment."""
    return f"time() - {moment}"


def elapsed_of_month() -> str:
    """Which part of the UTC month has passed; the first day counts as passed at its beginning."""
    past = f"(day_of_month() - 1) + (time() % {DAY_SECONDS}) / {DAY_SECONDS}"
    return f"scalar(clamp_min({past}, 1) / days_in_month())"


def _quantile(level: float, name: str, matchers: str, *, by: str, window: str) -> str:
    buckets = f"{metric(f'{name}_bucket', matchers)}[{window}]"
    inside = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({level}, sum by ({inside}) (rate({buckets})))"


def _over(operator: str, by: str) -> str:
    return f"{operator} by ({by})" if by else operator
