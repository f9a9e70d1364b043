"""Is a refused client told why, and what would fit, and no more than it may know?"""

from importlib.resources import files

import pytest

from gateway.billing.balances import Standing
from gateway.billing.catalogue_file import read_catalogue
from gateway.billing.explain import refusal_message, remaining

PACKAGED = files("gateway.billing").joinpath("catalogue.toml").read_text(encoding="utf-8")
PRO = read_catalogue(PACKAGED).models["sora-2-pro"]


def standing(
    level: str, available: int, *, period: str = "month", start: str = "2026-12-01"
) -> Standing:
    return Standing(
        level=level,
        period=period,
        period_start=start,
        limit_micros=10_000_000,
        spent_micros=7_000_000,
        held_micros=3_000_000 - available,
    )


def message(*refusing: Standing, disclose: bool = False) -> str:
    return refusal_message(refusing, price_micros=8_400_000, model=PRO, disclose=disclose)


def test_a_refusal_names_level_limit_left_spent_held_reset_and_what_would_fit() -> None:
    assert message(standing("project", 2_600_000)) == (
        "This request costs $8.40, but the project's monthly budget of $10.00 has $2.60 left"
        " (spent $7.00, held $0.40); it resets on 2027-01-01 at 00:00 UTC."
        " Would still fit: sora-2-pro at 720x1280 for 8 seconds ($2.40)."
    )


def test_the_dearest_offer_that_fits_is_suggested() -> None:
    assert "1024x1792 for 12 seconds ($6.00)" in message(standing("key", 6_000_000))
    assert "1024x1792 for 12 seconds" not in message(standing("key", 5_999_999))


def test_where_nothing_fits_that_is_said() -> None:
    assert "Nothing that sora-2-pro offers would fit." in message(standing("key", 1_199_999))


def test_an_overdrawn_budget_has_nothing_left() -> None:
    assert "has $0.00 left" in message(standing("key", -5))


def test_the_tightest_of_several_refusals_is_explained() -> None:
    refusing = (standing("project", 3_000_000), standing("key", 1_200_000))
    assert "the key's monthly budget" in message(*refusing)
    assert "1280x720" not in message(*refusing)


def test_of_the_organization_a_client_learns_only_that_it_refused() -> None:
    text = message(standing("organization", 2_600_000))
    assert "organization's monthly budget does not have that much left" in text
    assert "resets on 2027-01-01" in text
    for figure in ("10.00", "2.60", "7.00", "0.40", "Would still fit"):
        assert figure not in text


def test_the_operator_may_disclose_the_organizations_figures() -> None:
    text = message(standing("organization", 2_600_000), disclose=True)
    assert "the organization's monthly budget of $10.00 has $2.60 left" in text


@pytest.mark.parametrize(
    ("period", "start", "resets_on"),
    [
        ("day", "2026-12-31", "2027-01-01"),
        ("day", "2028-02-28", "2028-02-29"),
        ("month", "2026-01-01", "2026-02-01"),
        ("month", "2028-02-01", "2028-03-01"),
        ("total", "all", None),
    ],
)
def test_a_budget_resets_when_its_period_ends(
    period: str, start: str, resets_on: str | None
) -> None:
    one = standing("key", 0, period=period, start=start)
    assert one.resets_on == resets_on
    assert (f"resets on {resets_on}" in message(one)) == (resets_on is not None)


def test_what_remains_is_the_tightest_limit_that_may_be_seen() -> None:
    own, organization = standing("key", 500), standing("organization", 100)
    assert remaining((own, organization), disclose=False) == own
    assert remaining((own, organization), disclose=True) == organization
    assert remaining((organization,), disclose=False) is None
    assert remaining((), disclose=True) is None
