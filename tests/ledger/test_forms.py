"""Ids, and the JSON form of entries read back."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from ledger_samples import NOW, entry

from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.rates import Multiplier, Rate, RateCard
from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.ledger.ids import CallIds, new_call_id
from tallystick.ledger.jsonform import entry_from_json

CARD = RateCard(
    provider="openai",
    model="model-a",
    rates={"input": Rate(Decimal("0.111"), per=3600), "output": Rate(Decimal(10))},
    multipliers=(Multiplier("batch", Decimal("0.5"), (("processing", "batch"),)),),
    source="a page",
)
USAGE = Usage(input=7, output=3, searches=2)
FULL = entry(
    usage=USAGE, cost=price(USAGE, CARD, at=NOW, context={"processing": "batch"}), settled_at=NOW, recorded_at=NOW,
    reported_cost=Money.usd("0.1"), http_status=200, run_id="r", latency_us=5, usage_raw="{}",
)  # fmt: skip


def test_an_entry_survives_json() -> None:
    for one in (FULL, entry(usage=None, quality="unknown", cost=None)):
        row = json.loads(json.dumps(one.to_json()))
        assert entry_from_json(row).to_json() == row
    back = entry_from_json(FULL.to_json())
    assert back.cost is not None
    assert FULL.cost is not None
    assert back.cost.pico == FULL.cost.pico
    assert back.cost.known == FULL.cost.known
    assert [line.priced and line.priced.numerator for line in back.cost.lines[1:]] == [
        line.priced and line.priced.numerator for line in FULL.cost.lines[1:]
    ]


def test_keys_with_a_default_may_be_missing() -> None:
    row = {"call_id": "a", "started_at": "2026-11-21T13:00:00+01:00", "provider": "x", "model": "y", "usage": {}}
    assert entry_from_json(row).started_at == NOW


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "Update tallystick"),
        ({"modle": "x"}, "Did you mean 'model'"),
        ({"model": None}, "needs model"),
        ({"model": 5}, "must be text"),
        ({"started_at": "yesterday"}, "must be a time"),
        ({"started_at": "2026-11-21T12:00:00"}, "no time zone|needs a time zone"),
        ({"usage": {"tokens": 5}}, "not a kind"),
        ({"usage": [5]}, "must be an object"),
        ({"quality": "good"}, "quality"),
        ({"owed": 1}, "true or false"),
        ({"http_status": True}, "whole number"),
        ({"latency_us": -1}, "whole number"),
        ({"reported_cost": 5}, "amount of money"),
        ({"cost": {"lines": [{"kind": "x"}]}}, "not a kind"),
        ({"cost": {"lines": [{"kind": "input", "quantity": 1, "rate": "x", "per": 1}]}}, "decimal number"),
        ({"cost": {"lines": [{"kind": "input", "quantity": 1, "rate": "NaN", "per": 1}]}}, "no sensible number"),
        ({"cost": {"lines": [{"kind": "input", "quantity": 1, "rate": "1e99", "per": 1}]}}, "no sensible number"),
        ({"cost": {"lines": [{"kind": "input", "quantity": 1, "rate": "1", "per": 0}]}}, "makes no sense"),
        (
            {"cost": {"lines": [{"kind": "input", "quantity": 1, "rate": "1", "per": 1, "multipliers": [1]}]}},
            "a factor",
        ),
        ({"cost": {"lines": 5}}, "must be a list"),
        ({"tags": {"a": ""}}, "1 to 256"),
        ({"usage_raw": "x" * 5000}, "longer than 4096"),
    ],
)
def test_bad_json_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        entry_from_json({**FULL.to_json(), **change})


def test_ids_are_version_7_and_only_grow() -> None:
    ids = [new_call_id() for _ in range(2000)]
    assert ids == sorted(set(ids))
    parsed = uuid.UUID(ids[0])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_grow_when_the_clock_does_not() -> None:
    times = iter([10**15, 10**15, 10**15 - 10**9, 10**15 + 5000])
    make = CallIds(lambda: next(times), lambda count: b"\xff" * count)
    ids = [make() for _ in range(4)]
    assert ids == sorted(set(ids))
    assert uuid.UUID(ids[0]).int >> 80 == 10**12
