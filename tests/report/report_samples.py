"""Calls for the tests of reports: rates of our own, so that no figure moves with the catalogue."""

from datetime import UTC, datetime, timedelta

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry

NOW = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)
RATES = """
[rates.model-a]
input = "2"
output = "8"
cache_read = "0.5"
cache_write_5m = "2.5"

[rates.model-b]
input = "1"
output = "4"
"""


def call(number=1, at=NOW, pico=1_000_000_000, **fields):
    """An entry with a cost that no line explains."""
    values = {
        "call_id": f"call-{number}",
        "started_at": at,
        "provider": "openai",
        "model": "model-a",
        "usage": Usage(input=100, output=10),
        "cost": None if pico is None else Cost((), pico),
        "source": "client",
        **fields,
    }
    if isinstance(values.get("tags"), dict):
        values["tags"] = Tags(values["tags"])
    return Entry(**values)


def hours(*numbers):
    """Instants that many hours before NOW."""
    return [NOW - timedelta(hours=number) for number in numbers]
