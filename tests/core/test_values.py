"""Values are immutable, and the small ones stay out of the garbage collector's way."""

import importlib
import inspect
import pkgutil
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from tallystick.core.pricing import plan_for
from tallystick.core.rates import Brackets, Rate, RateCard

STATE = {"Progress"}
"""Structs that are working state, not values."""

HOLD_MUCH = {"ModelRef", "RateCard", "StreamMessage", "StreamEvent"}
"""Few live at a time, and some refer back: the collector may look at them."""


def structs(room):
    package = importlib.import_module(f"tallystick.{room}")
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value.__module__ == info.name:
                yield name, value.__struct_config__


@pytest.mark.parametrize("room", ["core", "wire"])
def test_values_are_immutable(room):
    found = {name: config.frozen for name, config in structs(room) if not name.startswith("_") and name not in STATE}
    assert found
    assert [name for name, frozen in found.items() if not frozen] == []


PAYLOADS = ("core.rates", "core.cost", "core.pricing", "wire.reading", "wire.partition", "wire.openai", "wire.anthropic",
            "wire.gemini", "wire.bedrock", "wire.cohere", "wire.compatible")  # fmt: skip


@pytest.mark.parametrize("name", PAYLOADS)
def test_what_is_made_for_every_call_is_not_tracked(name):
    module = importlib.import_module(f"tallystick.{name}")
    made = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
    ]
    assert made
    assert [value.__name__ for value in made if value.__struct_config__.gc and value.__name__ not in HOLD_MUCH] == []


def test_a_simple_card_is_priced_the_short_way():
    at = datetime(2026, 11, 21, tzinfo=UTC)
    plain = RateCard("acme", "m", {"input": Rate(Decimal(2))})
    assert plan_for(plain, 1, at, None).whole is True
    for rate in (
        Rate(Decimal(2), minimum=5),
        Rate(Decimal(2), step=3),
        Rate(Decimal(2), brackets=Brackets("volume", "month", ((0, Decimal(1)),))),
        Rate(Decimal(1), per=3_000_000_000_000_000),
    ):
        assert plan_for(RateCard("acme", "m", {"input": rate}), 1, at, None).whole is False
