"""Are dollars read, written and rounded without losing a micro?"""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.money import MAX_MICROS, charge, format_usd, parse_usd

MICROS = st.integers(0, MAX_MICROS)


@given(micros=MICROS)
def test_what_is_written_is_read_back(micros: int) -> None:
    assert parse_usd(format_usd(micros)) == micros


@given(micros=MICROS)
def test_an_amount_is_written_with_two_to_six_decimals(micros: int) -> None:
    decimals = format_usd(micros).partition(".")[2]
    assert 2 <= len(decimals) <= 6
    assert format_usd(-micros) == (f"-{format_usd(micros)}" if micros else "0.00")


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("0.10", 100_000),
        ("2.5", 2_500_000),
        ("2.50", 2_500_000),
        ("0.000001", 1),
        ("0.0000010000", 1),
        ("0007", 7_000_000),
        ("10000000000", MAX_MICROS),
    ],
)
def test_a_plain_decimal_number_is_an_amount(text: str, micros: int) -> None:
    assert parse_usd(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        *("", "abc", "$1", "-1", "-0", "+1", "1,5", " 1", "1 ", "1.", ".5", "1_000"),
        *("1e3", "1e-9999999", "1e999999", "nan", "inf", "sNaN", "٣", "1\n"),
    ],
)
def test_anything_but_a_plain_decimal_number_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount in US dollars, such as 2\.50"):
        parse_usd(text)


@pytest.mark.parametrize("text", ["0.0000001", "0.10000000000000000000000000000000000001"])
def test_an_amount_finer_than_a_micro_is_refused_and_not_rounded(text: str) -> None:
    with pytest.raises(ValueError, match="is finer than a millionth of a dollar"):
        parse_usd(text)


@pytest.mark.parametrize("text", ["10000000000.000001", "9" * 40])
def test_an_amount_over_the_limit_is_refused_and_the_limit_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"is more than 10000000000\.00 dollars"):
        parse_usd(text)


@given(
    rate=st.integers(0, MAX_MICROS),
    units=st.decimals(0, 3600, allow_nan=False) | st.integers(0, 3600),
)
def test_a_charge_is_never_below_rate_times_units_and_less_than_a_micro_above(
    rate: int, units: Decimal | int
) -> None:
    exact = Fraction(units) * rate
    assert exact <= charge(rate_micros=rate, units=units) < exact + 1


def test_a_charge_of_more_digits_than_decimal_keeps_is_still_rounded_up() -> None:
    units = Decimal("8.0000000000000000000000000000000000001")
    assert charge(rate_micros=700_000, units=units) == 5_600_001
