"""Entries to put into ledgers, and a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Correction, Entry

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    """A clock that moves one second a look."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        self.now += timedelta(seconds=1)
        return self.now.timestamp()

    def seen(self) -> float:
        """The time of the last look."""
        return self.now.timestamp()


def cost(pico: int | None) -> Cost:
    return Cost((), pico)


def entry(call_id: str = "call-1", **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "call_id": call_id,
        "started_at": NOW,
        "provider": "openai",
        "model": "model-a",
        "usage": Usage(input=1000, output=50),
        "cost": cost(3_500_000_000),
        "source": "client",
        "tags": Tags(team="a", user="ada"),
    }
    return Entry(**{**values, **fields})


def correction(corrects: str = "call-1", identity: str = "fix-1", **fields: Any) -> Correction:
    return Correction(
        correction_id=identity,
        corrects=corrects,
        recorded_at=NOW + timedelta(hours=1),
        reason="re-rated",
        fields=fields,
    )
