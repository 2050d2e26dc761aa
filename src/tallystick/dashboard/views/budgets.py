"""Budgets: how full each limit is, how fast it is used up, what is held and by whom; and the forms that change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from markupsafe import Markup

from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.figures import dollars, moment
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.dashboard.svg import burn_down, gauge
from tallystick.errors import InputError
from tallystick.insight.board_budgets import Board, BudgetView, HoldView, Kept, look_budgets
from tallystick.insight.when import length_of
from tallystick.ledger.budget import Budget
from tallystick.metering.budgets import Standing, find_budget, put
from tallystick.metering.outbox import Notice
from tallystick.metering.rules import make_budget, parse_limit, period_words

PATH: Final = "/budgets"
KEPT_SECONDS: Final = 1.0
FULLEST_SHOWN: Final = 5
DRAWN_SECONDS: Final = 20.0
"""A burn-down is drawn anew so often; its last point is always that of the account."""

_HOURLY: Final = ("%H:%M", "%d %b %H:%M")
_DAILY: Final = ("%d %b", "%a %d %b %Y")
_MONTHLY: Final = ("%b", "%B %Y")
_SHAPES: Final = {"day": _HOURLY, "week": _DAILY, "month": _DAILY, "year": _MONTHLY}
_HOLDS: Final = (
    Column("call", "Call"),
    Column("state", "State"),
    Column("amount", "Holds", "money"),
    Column("claims", "Of"),
    Column("doing", "Model, run"),
    Column("owner", "Held by", note="The process that made the call"),
    Column("since", "Since", "time"),
    Column("expires_at", "Suspect from", "time", note="When nobody has said by then how the call ended"),
)
_NOTICES: Final = (
    Column("at", "When", "time"),
    Column("budget", "Budget"),
    Column("threshold", "Passed"),
    Column("spent", "Spent"),
    Column("limit", "Of"),
    Column("told", "Told"),
)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A budget with its pictures, and the gauges of its fullest accounts."""

    view: BudgetView
    gauge: Markup
    burn: Markup | None
    accounts: tuple[tuple[Standing, Markup], ...]


def show(room: Room, asked: Asked) -> Page:
    """All budgets of the ledger."""
    key = "budgets", room.ledger.budgets().version
    # Who has just changed something sees what has become of it.
    kept = 0.0 if asked.get("done") else KEPT_SECONDS
    board = room.memo.get(key, room.now, kept, lambda: _look(room))
    return Page(
        template="budgets.html",
        data={
            "board": board,
            "budgets": [_shown(one) for one in board.budgets],
            "hold_columns": _HOLDS,
            "holds": [_hold(one) for one in board.holds],
            "notice_columns": _NOTICES,
            "notices": [_notice(one) for one in board.notices],
            "money_of": Money,
            "done": _done(asked, board),
        },
        rows=[row for one in board.budgets for row in _rows(one)],
        more={"holds": [_hold_row(one) for one in board.holds], "notices": [one.to_json() for one in board.notices]},
    )


def _look(room: Room) -> Board:
    def keep(key: tuple[object, ...], make: Callable[[], Kept]) -> Kept:
        return room.memo.get(key, room.now, DRAWN_SECONDS, make)

    return look_budgets(room.ledger, room.now, room.flights, keep)


def act(room: Room, item: str, form: Mapping[str, str]) -> str:
    """Does what a form says: `do` is create, raise, unraise, pause, resume, or charge or release, which are about a
    suspect hold. Raises InputError where that
    makes no sense; nothing is changed then."""
    del item
    what = form.get("do", "")
    if what not in _ACTS:
        raise InputError(f"{what[:40]!r} is nothing that can be done to a budget.", money="Nothing was changed.")
    name = form.get("name", "").strip()
    _ACTS[what](room, name, form)
    return f"{PATH}?done={what}&name={_safe(name)}"


def _create(room: Room, name: str, form: Mapping[str, str]) -> None:
    if any(one.budget_id == name for one in room.ledger.budgets().budgets):
        raise InputError(
            f"There is a budget {name[:80]!r} already.",
            money="Nothing was changed.",
            todo=f"Raise it, or give it another rule: tally budget add {name[:80]} --limit ...",
        )
    rule: dict[str, object] = {
        "limit": form.get("limit", ""),
        "scope": _scope(form.get("scope", "")),
        "each": form.get("each", "").replace(",", " ").split(),
        "alerts": _alerts(form.get("alerts", "")),
        "hard": form.get("kind", "hard") == "hard",
        "tz": room.ledger.zone,
    }
    put(room.ledger, make_budget(name, rule, room.now), room.now)


def _raise(room: Room, name: str, form: Mapping[str, str]) -> None:
    budget = find_budget(room.ledger, name)
    amount, unit, period = parse_limit(form.get("by", ""))
    if unit != budget.unit or period.unit != "lifetime":
        raise InputError(
            f"The budget {name!r} counts {budget.unit}; {form.get('by', '')[:60]!r} does not fit.",
            money="Nothing was changed.",
            todo="Give an amount without a period.",
        )
    until = room.now + length_of(form.get("for", "") or "24h")
    room.ledger.put_budget(msgspec.structs.replace(budget, raised_by=amount, raised_until=until))


def _unraise(room: Room, name: str, form: Mapping[str, str]) -> None:
    del form
    budget = find_budget(room.ledger, name)
    room.ledger.put_budget(msgspec.structs.replace(budget, raised_by=0, raised_until=None))


def _pause(room: Room, name: str, form: Mapping[str, str]) -> None:
    del form
    room.ledger.put_budget(msgspec.structs.replace(find_budget(room.ledger, name), paused=True))


def _resume(room: Room, name: str, form: Mapping[str, str]) -> None:
    del form
    room.ledger.put_budget(msgspec.structs.replace(find_budget(room.ledger, name), paused=False))


def _charge(room: Room, name: str, form: Mapping[str, str]) -> None:
    """All that a suspect hold claims was spent."""
    del form
    found = next((one for one in room.ledger.holds("suspect") if one.hold_id == name), None)
    room.ledger.resolve(name, None if found is None else found.charges)


def _release(room: Room, name: str, form: Mapping[str, str]) -> None:
    """Nothing of what a suspect hold claims was spent."""
    del form
    room.ledger.resolve(name, None)


_ACTS: Final[Mapping[str, Callable[[Room, str, Mapping[str, str]], None]]] = {
    "create": _create,
    "raise": _raise,
    "unraise": _unraise,
    "pause": _pause,
    "resume": _resume,
    "charge": _charge,
    "release": _release,
}
_SAID: Final = {
    "create": "{name} limits calls from now on.",
    "raise": "{name} is raised.",
    "unraise": "{name} has its own limit again.",
    "pause": "{name} limits nothing until it is resumed; it goes on counting.",
    "resume": "{name} limits calls again.",
    "charge": "What was held for {name} counts as spent.",
    "release": "What was held for {name} is given back.",
}


def _scope(text: str) -> dict[str, str]:
    found = {}
    for pair in text.replace(",", " ").split():
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{pair[:60]!r} is no scope.", money="Nothing was changed.", todo="Write team=a user=ada.")
        found[name] = value
    return found


def _alerts(text: str) -> list[int]:
    words = text.replace("%", " ").replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) <= len("1000") for word in words):
        raise InputError("Alerts are percentages of the limit.", money="Nothing was changed.", todo="Write 50 80 100.")
    return [int(word) for word in words]


def _safe(name: str) -> str:
    """A budget's name as part of an address; the names that budgets can have need no escaping."""
    return "".join(char for char in name if char.isascii() and (char.isalnum() or char in "._-"))


def _done(asked: Asked, board: Board) -> str:
    """What has just been done, in words."""
    words, name = _SAID.get(asked.get("done")), asked.get("name")
    if asked.get("done") in ("charge", "release"):
        known = all(one.call_id != name for one in board.holds)
    else:
        known = any(one.budget.budget_id == name for one in board.budgets)
    return words.format(name=name) if words is not None and known else ""


def _shown(view: BudgetView) -> Shown:
    budget = view.budget
    alerts = budget.alerts
    each = [(one, _gauge(budget, one, alerts)) for one in view.fullest[:FULLEST_SHOWN]] if budget.each else []
    return Shown(
        view=view,
        gauge=_gauge(budget, view.standing, () if budget.each else alerts),
        burn=_burn(view),
        accounts=tuple(each),
    )


def _gauge(budget: Budget, one: Standing, alerts: tuple[int, ...]) -> Markup:
    title = f"{budget.budget_id} {one.value}".strip()
    unit = "usd" if budget.unit == "usd" else "count"
    return gauge(one.spent, one.limit, title=title, unit=unit, suspect=one.suspect, held=one.held, alerts=alerts)


def _burn(view: BudgetView) -> Markup | None:
    if view.burn is None:
        return None
    short, long = _SHAPES[view.budget.period.unit]
    starts = [point.start for point in view.burn.points]
    return burn_down(
        [point.left for point in view.burn.points],
        [moment(start, view.budget.period.tz, long) for start in starts],
        short=[moment(start, view.budget.period.tz, short) for start in starts],
        limit=view.standing.limit,
        title=f"What is left of {view.budget.budget_id}",
        unit="usd" if view.budget.unit == "usd" else "count",
        projected=view.burn.projected,
    )


def _hold(one: HoldView) -> dict[str, object]:
    return {
        "call": Link(one.call_id, f"/calls/{one.call_id}"),
        "state": one.state,
        "amount": one.money,
        "claims": ", ".join(f"{name}: {amount}" for name, amount in one.claims),
        "doing": one.doing,
        "owner": one.owner,
        "since": one.since,
        "expires_at": one.expires_at,
        "id": one.call_id,
    }


def _hold_row(one: HoldView) -> dict[str, object]:
    row = {name: value for name, value in _hold(one).items() if name != "id"}
    return {**row, "call": one.call_id, "claims": [list(claim) for claim in one.claims]}


def _notice(one: Notice) -> dict[str, object]:
    return {
        "at": one.at,
        "budget": f"{one.budget} ({one.value})" if one.value else one.budget,
        "threshold": f"{one.threshold} %",
        "spent": _short(one.spent),
        "limit": _short(one.limit),
        "told": "yes" if one.done else "not yet",
    }


def _short(amount: str) -> str:
    """An amount of a notice, which is exact, as the page shows others."""
    return dollars(Money.parse(amount)) if amount.startswith("$") else amount


def _rows(view: BudgetView) -> list[dict[str, object]]:
    budget = view.budget
    return [
        {
            "name": budget.budget_id,
            "value": one.value,
            "period": period_words(budget.period),
            "scope": view.scope,
            "unit": budget.unit,
            "hard": budget.hard,
            "paused": budget.paused,
            **{name: _amount(budget, getattr(one, name)) for name in ("limit", "spent", "suspect", "held", "left")},
            "percent": one.percent,
            "resets_at": one.resets_at,
        }
        for one in view.fullest
    ]


def _amount(budget: Budget, amount: int) -> object:
    return Money(amount) if budget.unit == "usd" else amount


VIEW: Final = View(
    path=PATH, title="Budgets", symbol="budgets", show=show, act=act, own=frozenset({"done", "name"}), live=2.0
)
