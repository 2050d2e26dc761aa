import copy
import pickle
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.money import PICO_PER_USD, Money, divide_half_even
from tallystick.errors import InputError

picos = st.integers(-(10**24), 10**24)


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9))
def test_division_goes_to_the_nearest_and_ties_to_the_even(numerator, denominator):
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (7, 4, 2), (5, 4, 1), (4, 3, 1), (5, 3, 2), (8, 2, 4)],
)
def test_ties(numerator, denominator, expected):
    assert divide_half_even(numerator, denominator) == expected


@given(picos, picos, st.integers(-1000, 1000))
def test_arithmetic_is_that_of_whole_numbers(first, second, count):
    a, b = Money(first), Money(second)
    assert (a + b).pico == first + second
    assert (a - b).pico == first - second
    assert (a * count).pico == (count * a).pico == first * count
    assert (-a).pico == -first
    assert abs(a).pico == abs(first)
    assert bool(a) == bool(first)
    assert sum([a, b]) == a + b
    assert (a < b, a <= b, a > b, a >= b, a == b) == (
        first < second, first <= second, first > second, first >= second, first == second,
    )  # fmt: skip


@given(picos)
def test_every_form_reads_back(pico):
    money = Money(pico)
    assert Money.parse(str(money)) == Money.parse(money.plain()) == money
    assert Money.from_json(money.to_json()) == money
    assert Money.usd(money.to_decimal()) == money
    assert Money.usd(Fraction(pico, PICO_PER_USD)) == money
    assert pickle.loads(pickle.dumps(money)) == copy.deepcopy(money) == money
    assert eval(repr(money)) == money
    assert hash(Money(pico)) == hash(money)


@pytest.mark.parametrize(
    ("pico", "shown", "plain"),
    [
        (0, "$0.00", "0"),
        (1, "$0.000000000001", "0.000000000001"),
        (3_500_000_000, "$0.0035", "0.0035"),
        (500_000_000_000, "$0.50", "0.5"),
        (-500_000_000_000, "-$0.50", "-0.5"),
        (-5, "-$0.000000000005", "-0.000000000005"),
        (12 * PICO_PER_USD, "$12.00", "12"),
        (1234567 * PICO_PER_USD, "$1,234,567.00", "1234567"),
    ],
)
def test_shown(pico, shown, plain):
    assert str(Money(pico)) == shown
    assert Money(pico).plain() == plain
    assert Money(pico).to_json() == {"usd": plain}
    assert repr(Money(pico)) == f"Money.usd({plain!r})"


@pytest.mark.parametrize(
    ("text", "pico"),
    [
        ("$0.50", 5 * 10**11),
        (" 0.50 ", 5 * 10**11),
        (".5", 5 * 10**11),
        ("-1.25", -125 * 10**10),
        ("-$1.25", -125 * 10**10),
        ("+3 USD", 3 * 10**12),
        ("3USD", 3 * 10**12),
        ("$1,234.5", 12345 * 10**11),
        ("1,000,000", 10**18),
        ("0.0000000000005", 0),
        ("0.0000000000015", 2),
        ("-0.0000000000015", -2),
    ],
)
def test_parse(text, pico):
    assert Money.parse(text).pico == pico
    assert Money.usd(text).pico == pico


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "five",
        "1.2.3",
        "--1",
        "1e5",
        "0x10",
        "5.",
        "nan",
        "inf",
        "€5",
        "0,50",
        "1,5",
        "1,0000",
        ",5",
        "1 000",
        "٣",
        "1" * 31,
    ],
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(InputError, match="is not an amount of money") as caught:
        Money.parse(text)
    assert caught.value.todo


@pytest.mark.parametrize("value", [0.5, 1.0, True, None, [], b"1"])
def test_floats_and_others_are_refused(value):
    with pytest.raises(InputError):
        Money.usd(value)
    with pytest.raises(InputError):
        Money(value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e60", "1e999999999"])
def test_decimals_without_bounds_are_refused(value):
    with pytest.raises(InputError, match="finite"):
        Money.usd(Decimal(value))


def test_decimals_below_all_money_are_nothing():
    assert Money.usd(Decimal("1e-999999999")) == Money.usd(Decimal("1e-60")) == Money()
    assert Money.usd(Decimal("9e59")).pico == 9 * 10**71
    assert Money.usd(3) == Money(3 * PICO_PER_USD)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "1",
        {},
        {"usd": 1},
        {"usd": 0.1},
        {"usd": "1", "eur": "1"},
        {"usd": "x"},
        {"usd": "1e5"},
        {"usd": "NaN"},
        {"usd": "1_0"},
    ],
)
def test_json_that_is_no_money_is_refused(value):
    with pytest.raises(InputError):
        Money.from_json(value)


def test_money_stays_what_it_is():
    money = Money(5)
    with pytest.raises(AttributeError, match="immutable"):
        money.pico = 6
    with pytest.raises(AttributeError, match="immutable"):
        money._pico = 6
    assert money == Money(5)
    assert {money: 1}[Money(5)] == 1


@pytest.mark.parametrize("other", [1, 0.5, "1", Decimal(1), None])
def test_money_mixes_with_nothing_else(other):
    money = Money(5)
    assert money != other
    for operation in (lambda: money + other, lambda: other + money, lambda: money - other, lambda: money < other):
        with pytest.raises(TypeError):
            operation()
    if other != 1 or isinstance(other, Decimal):
        with pytest.raises(TypeError):
            _ = money * other
    assert money + 0 == 0 + money == money
    with pytest.raises(TypeError):
        _ = money + False
    with pytest.raises(TypeError):
        _ = money * True
