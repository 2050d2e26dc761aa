import copy
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal as D

import msgspec
import pytest

from tallystick.core.cost import Cost, describe_rate
from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.rates import Multiplier, Rate, RateCard
from tallystick.core.usage import Usage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def cost(counts, rates, context=None, **more):
    return price(Usage(counts), RateCard("acme", "m", rates, source="a page", **more), at=AT, context=context)


def test_shown_line_by_line():
    found = cost({"input": 1000, "output": 100}, {"input": Rate(D("2.50")), "output": Rate(D(10))})
    assert str(found).splitlines() == [
        "input   1,000 x $2.50 per 1M tokens  $0.0025",
        "output  100 x $10.00 per 1M tokens    $0.001",
        "total                                $0.0035",
    ]


def test_what_is_left_out_is_shown():
    found = cost({"input": 1000, "images": 2}, {"input": Rate(D("2.50"))}, status="conflict")
    assert str(found).splitlines() == [
        "input   1,000 x $2.50 per 1M tokens                     $0.0025",
        "images  2 x no rate                                    unpriced  no rate for this kind",
        "total                                unknown (at least $0.0025)  sources disagree on acme/m",
    ]
    assert str(Cost((), 0)) == "total    $0.00"


def test_a_cost_is_the_same_however_its_lines_were_given():
    found = cost({"input": 1000, "output": 100}, {"input": Rate(D("2.50")), "output": Rate(D(10))})
    listed = Cost(found.lines, *msgspec.structs.astuple(found)[1:])
    assert found == listed
    assert listed == found
    assert hash(found) == hash(listed)
    assert repr(found) == repr(listed)
    assert found.columns == listed.columns == found.lines
    assert (listed.columns.quantities, listed.columns.amounts) == ((1000, 100), (2_500_000_000, 1_000_000_000))
    assert listed.columns.form.kinds == ("input", "output")
    assert pickle.loads(pickle.dumps(found)) == copy.copy(found) == found
    assert [line.kind for line in found.lines] == ["input", "output"]
    other = msgspec.structs.replace(found, lines=found.lines[:1])
    assert other != found
    assert found != other
    assert Cost((), 0).columns.lines == Cost((), 0).lines == ()


def test_costs_share_the_form_of_their_lines():
    card = RateCard("acme", "m", {"input": Rate(D("2.50")), "output": Rate(D(10))})
    first, second = (price(Usage(input=count, output=1), card, at=AT) for count in (1, 2))
    assert first.columns.form is second.columns.form
    assert first.columns.form.shared
    assert not price(Usage(input=1, images=1), card, at=AT).columns.form.shared


def test_json_is_exact_text():
    found = cost(
        {"input": 1000, "images": 2},
        {"input": Rate(D("2.50"), 1000)},
        {"processing": "batch"},
        multipliers=(Multiplier("batch", D("0.5"), (("processing", "batch"),)),),
        catalogue="abc",
    )
    shown = json.loads(json.dumps(found.to_json()))
    assert shown == {
        "amount": None,
        "listed": None,
        "basis": "list",
        "lines": [
            {
                "kind": "input", "quantity": 1000, "unit": "token", "rate": "2.50", "per": 1000, "multipliers": [["batch", "0.5"]],
                "amount": {"usd": "1.25"}, "source": "a page", "note": None,
            },
            {
                "kind": "images", "quantity": 2, "unit": "image", "rate": None, "per": None, "multipliers": [], "amount": None,
                "source": None, "note": "no rate for this kind",
            },
        ],
        "rate_ids": ["acme/m"],
        "catalogue": "abc",
        "notes": [],
    }  # fmt: skip
    assert cost({"input": 1}, {"input": Rate(D(1))}).to_json()["amount"] == {"usd": "0.000001"}
    assert cost({"input": 1}, {"input": Rate(D("1e-7"))}).lines[0].to_json()["rate"] == "0.0000001"
    assert found.lines[0].amount == Money.usd("1.25")


@pytest.mark.parametrize(
    ("kind", "per", "words"),
    [
        ("input", 1, "$2.00 per token"),
        ("input", 1000, "$2.00 per 1k tokens"),
        ("input", 1_000_000, "$2.00 per 1M tokens"),
        ("input", 5000, "$2.00 per 5,000 tokens"),
        ("searches", 1000, "$2.00 per 1k searches"),
        ("milliseconds_input", 3_600_000, "$2.00 per hour"),
        ("milliseconds_output", 60_000, "$2.00 per minute"),
        ("milliseconds_output", 1000, "$2.00 per second"),
        ("milliseconds_output", 500, "$2.00 per 500 ms"),
        ("fee:x", 1, "$2.00 per call"),
        ("cache_token_hours", 1_000_000, "$2.00 per 1M token-hours"),
    ],
)
def test_rates_in_words(kind, per, words):
    assert describe_rate(cost({kind: 1}, {kind: Rate(D(2), per)}).lines[0]) == words


def test_multipliers_in_words():
    factors = (Multiplier("batch", D("0.50"), ()), Multiplier("regional", D("1.1"), ()))
    line = cost({"input": 1}, {"input": Rate(D(2))}, multipliers=factors).lines[0]
    assert describe_rate(line) == "$2.00 per 1M tokens x 0.50 batch x 1.1 regional"
    assert (line.rate, line.per, line.unit, line.source) == (2, 1_000_000, "token", "a page")
    assert describe_rate(cost({"input": 1}, {}).lines[0]) == "no rate"


def test_nothing_changes_once_made():
    found = cost({"input": 1}, {"input": Rate(D(2))}, multipliers=(Multiplier("batch", D("0.5"), ()),))
    line = found.lines[0]
    for made, field in ((found, "pico"), (line, "pico"), (line.priced, "numerator"), (line.priced.rate, "usd")):
        with pytest.raises(AttributeError):
            setattr(made, field, 5)
