"""What may be bought, at random, and how it ends? Strategies and scripts for properties of sums."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st
from ledger_tools import KEYS, NOW, a_hold

from gateway.billing import ledger
from gateway.billing.money import Basis
from gateway.db.script import Script

DAY_SECONDS = 86_400
DAYS = 5
LATER_DAYS = 40
# NOW is the last hour of a month.
SINCE = NOW - 3 * DAY_SECONDS
UNTIL = NOW + (DAYS + LATER_DAYS) * DAY_SECONDS


@dataclass(frozen=True)
class Purchase:
    """A hold, how it ends, and what is corrected afterwards, with the days between."""

    key_id: str
    day: int
    model: str
    size: str
    operation: str
    seconds: int
    rate: int
    basis: Basis
    end: str | int
    corrections: tuple[int, ...]
    wait_days: int


micros = st.integers(min_value=0, max_value=3_000_000)
purchases = st.builds(
    Purchase,
    key_id=st.sampled_from(sorted(KEYS)),
    day=st.integers(min_value=0, max_value=DAYS - 1),
    model=st.sampled_from(["sora-2", "sora-2-pro"]),
    size=st.sampled_from(["720x1280", "1024x1792"]),
    operation=st.sampled_from(["create", "remix"]),
    seconds=st.sampled_from([4, 8, 12]),
    rate=st.integers(min_value=1, max_value=500_001),
    basis=st.builds(
        Basis,
        name=st.sampled_from(["list", "cost"]),
        multiplier_ppm=st.sampled_from([1, 333_333, 909_091, 1_000_000, 1_000_001, 2_718_281]),
    ),
    end=st.one_of(st.just("held"), st.just("released"), micros),
    corrections=st.lists(micros, max_size=3).map(tuple),
    wait_days=st.integers(min_value=0, max_value=LATER_DAYS // 4),
)


def buy(number: int, one: Purchase) -> Script[None]:
    bought_at = SINCE + one.day * DAY_SECONDS
    hold = replace(
        a_hold(number, key_id=one.key_id, seconds=one.seconds, rate=one.rate, now=bought_at),
        model=one.model,
        size=one.size,
        operation=one.operation,
        basis=one.basis,
    )
    yield from ledger.hold(hold, now=bought_at)
    moment = bought_at + one.wait_days * DAY_SECONDS
    if one.end == "held":
        return
    if isinstance(one.end, int):
        yield from ledger.settle(hold.id, list_micros=one.end, reason="completed", now=moment)
    else:
        yield from ledger.release(hold.id, reason="failed", now=moment)
    for place, list_micros in enumerate(one.corrections):
        moment += one.wait_days * DAY_SECONDS
        yield from ledger.correct(
            hold.id,
            entry_id=f"{hold.id}/adjust/{place}",
            list_micros=list_micros,
            reason="bill",
            now=moment,
        )


def buy_all(bought: list[Purchase]) -> Script[None]:
    for number, one in enumerate(bought):
        yield from buy(number, one)
