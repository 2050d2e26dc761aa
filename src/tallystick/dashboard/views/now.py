"""Now: what is being spent at this moment: today and this month against their budgets, the calls in flight, the last
hour minute by minute, the latest calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.figures import moment
from tallystick.dashboard.room import Page, Room, View
from tallystick.dashboard.views.calls import call_row
from tallystick.insight.board_now import MINUTE, Level, days, latest, levels, minute_of, spent_in_flight
from tallystick.insight.flights import flight_json, look_flights
from tallystick.insight.live import look
from tallystick.insight.spend import known_cost, total_json
from tallystick.ledger.query import Total
from tallystick.metering.rules import limit_words

MINUTES: Final = 60
LAST: Final = 14
BUDGETS: Final = 5
RUNS: Final = 5

_SETTLED: Final = 5
"""After so many minutes hardly a call of a minute is still in flight, so its sum is kept for a while."""

_KEPT_SECONDS: Final = 600
_SLOW_SECONDS: Final = 20


def show(room: Room, asked: Asked) -> Page:
    """The first page."""
    flights = look_flights(room.flights)
    ledger, now, tz = room.ledger, room.now, asked.tz
    spent = days(ledger, now, tz)
    # Its projections look far back, and do not change from one second to the next.
    slow = room.memo.get("look", now, _SLOW_SECONDS, lambda: look(ledger, now, last=0))
    full = levels(ledger, now)
    last = latest(ledger, now, LAST)
    minutes = _minutes(room)
    projection = slow.month.owed
    data = {
        "spent": spent,
        "projection": projection,
        "day_level": _whole(full, "day"),
        "month_level": _whole(full, "month"),
        "levels": full[:BUDGETS],
        "more_levels": max(0, len(full) - BUDGETS),
        "limit_words": limit_words,
        "chart": _chart(minutes, tz),
        "minute": minute_of(ledger, now - MINUTE),
        "hour": sum((total.cost for _, total in minutes), Money(0)),
        "hour_calls": sum(total.calls for _, total in minutes),
        "flights": flights,
        "flights_cost": spent_in_flight(flights),
        "last": last,
        "runs": slow.moved(now, flights).runs[:RUNS],
        "money_of": Money,
        "any": bool(last or flights.alive),
    }
    more = {
        "at": now,
        "today": total_json(spent.today),
        "yesterday_until_now": total_json(spent.yesterday),
        "month": total_json(spent.month),
        "projection": None if projection is None else projection.to_json(),
        "minutes": [{"start": start, "calls": total.calls, "cost": known_cost(total)} for start, total in minutes],
        "in_flight": [flight_json(one, now) for one in flights.alive],
    }
    return Page(template="now.html", data=data, rows=[call_row(entry) for entry in last], more=more)


def _minutes(room: Room) -> list[tuple[datetime, Total]]:
    """The last hour, minute by minute, the one under way last."""
    this = room.now.replace(second=0, microsecond=0)
    found = []
    for back in range(MINUTES - 1, -1, -1):
        start = this - timedelta(minutes=back)
        kept = _KEPT_SECONDS if back > _SETTLED else 0
        total = room.memo.get(("minute", start), room.now, kept, lambda start=start: minute_of(room.ledger, start))  # type: ignore[misc]
        found.append((start, total))
    return found


def _chart(minutes: Sequence[tuple[datetime, Total]], tz: str) -> Any:
    from tallystick.dashboard.svg import Series, bars

    labels = [moment(start, tz, "%H:%M") for start, _ in minutes]
    values = tuple([_pico(known_cost(total)) for _, total in minutes])
    row = Series(name="spent", values=values, slot=2)
    return bars([row], labels, title="Spend per minute of the last hour", tall=252)


def _pico(amount: Money | None) -> int | None:
    return None if amount is None else amount.pico


def _whole(found: Sequence[Level], unit: str) -> Level | None:
    """The tightest budget on everything that is spent in such a period."""
    return next((one for one in found if one.whole and one.budget.period.unit == unit), None)


VIEW = View(path="/", title="Now", symbol="now", show=show, live=1.5)
