"""Routes: the table of what the interface answers. Requests are routed by it, and its documentation is made of it."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

import msgspec

from tallystick.gateway.api import answers, bodies, limits, prices
from tallystick.gateway.api.answers import Answer
from tallystick.gateway.api.http import Problem
from tallystick.insight.report import PER
from tallystick.insight.when import WHEN
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES
from tallystick.ledger.hold import HOLD_STATES

MOST_ROWS: Final = 1000
MOST_TEXT: Final = 512
MOST_BODY: Final = 4 * 2**20
"""The largest body that is taken, in bytes: a long prompt to be estimated."""


class Param(msgspec.Struct, frozen=True):
    """A value that a question may name: `kind` is text, count, flag or list (given more than once, or parted by commas
    where `commas`)."""

    name: str
    about: str
    kind: str = "text"
    choices: tuple[str, ...] = ()
    default: Any = None
    most: int = MOST_ROWS
    commas: bool = False
    required: bool = False


class Route(msgspec.Struct, frozen=True):
    """One thing that is answered: `parts` are the words of the path, those in braces values. `shape` names the schema
    of the answer, `body` is the type of the request's body."""

    method: str
    parts: tuple[str, ...]
    name: str
    about: str
    answer: Answer
    shape: str
    params: tuple[Param, ...] = ()
    body: type | None = None
    status: int = 200
    errors: tuple[int, ...] = (400,)

    @property
    def path(self) -> str:
        """The path as documents write it: `/calls/{call_id}`."""
        return "/" + "/".join(self.parts)


SINCE: Final = Param("since", f"From then on: {WHEN}.")
UNTIL: Final = Param("until", "Up to before then.")
TZ: Final = Param("tz", "The time zone of days and periods, an IANA name. Default: the ledger's.")
MODEL: Final = Param("model", "Only this model.")
PROVIDER: Final = Param("provider", "Only this provider.")
TAG: Final = Param("tag", "Only calls with this tag, as NAME=VALUE; may be given more than once.", "list")
CURSOR: Final = Param("cursor", "Where to go on: the `cursor` of the answer before.")
LIMIT: Final = Param("limit", "How many rows at most.", "count", default=50)

TABLE: Final = (
    Route(
        "GET", ("calls",), "listCalls", "The calls in the ledger, newest first.", answers.calls, "Calls",
        (
            SINCE, UNTIL, TZ, MODEL, PROVIDER, Param("maker", "Only models of this maker."),
            Param("run", "Only calls of this run."),
            Param("status", "Only calls that ended so.", choices=STATUSES),
            Param("quality", "Only calls whose usage is so well known.", choices=QUALITIES),
            Param("source", "Only calls seen by this source.", choices=SOURCES),
            Param("owed", "false: only what a subscription covers; true: only the rest.", "flag"),
            TAG, Param("order", "Which come first.", choices=("newest", "oldest"), default="newest"), LIMIT, CURSOR,
        ),
    ),
    Route(
        "GET", ("calls", "{call_id}"), "getCall",
        "One call, line by line, with what corrected it and what other sources said of it; also while it is in flight.",
        answers.call, "CallPage", errors=(400, 404),
    ),
    Route(
        "GET", ("runs",), "listRuns", "The runs with their cost, the most expensive first.", answers.runs, "Runs",
        (SINCE, UNTIL, TZ, MODEL, TAG, LIMIT, CURSOR),
    ),
    Route(
        "GET", ("runs", "{run_id}"), "getRun",
        "One run as a tree: its steps and the runs below it, each with its direct and its inclusive cost.",
        answers.run, "RunPage", errors=(400, 404),
    ),
    Route(
        "GET", ("spend",), "getSpend", "What was spent, by names and per period: what `tally report --json` says.",
        answers.spend, "Report",
        (
            Param("by", "Group by provider, model, maker, source, status, quality, run, or any tag.", "list",
                  commas=True),
            Param("per", "Split by calendar period, five-hour block or run.", choices=PER),
            SINCE, UNTIL, TZ, MODEL, TAG,
            Param("breakdown", "Tokens and cost by kind; reads every call.", "flag", default=False),
            Param("spread", "Percentiles of cost, latency and time to first token.", "flag", default=False),
        ),
    ),
    Route("GET", ("budgets",), "listBudgets", "All budgets with their accounts.", limits.budgets, "Budgets"),
    Route(
        "POST", ("budgets",), "putBudget",
        "Adds a budget, or gives one of that name another limit; what it has used stays.",
        limits.put_budget, "BudgetPage", body=bodies.BudgetBody, status=201, errors=(400, 415),
    ),
    Route(
        "GET", ("budgets", "{name}"), "getBudget", "One budget with its accounts.", limits.budget, "BudgetPage",
        errors=(400, 404),
    ),
    Route(
        "PATCH", ("budgets", "{name}"), "changeBudget", "Raises a budget for a while, pauses or resumes it.",
        limits.change_budget, "BudgetPage", body=bodies.BudgetChange, errors=(400, 404, 415),
    ),
    Route(
        "DELETE", ("budgets", "{name}"), "removeBudget",
        "Takes a budget away; the calls it counted stay in the ledger.",
        limits.remove_budget, "Removed", errors=(400, 404, 415),
    ),
    Route(
        "GET", ("holds",), "listHolds", "Money that is set aside: for calls in flight, and for those whose end nobody "
        "knows (suspect).", limits.holds, "Holds",
        (
            Param("state", "Only holds in this state. Default: open and suspect.", choices=HOLD_STATES),
            Param("budget", "Only holds of this budget."),
        ),
    ),
    Route(
        "GET", ("rates",), "findRates", "The rates of a model at an instant, or every card of it.", prices.rates,
        "Rates",
        (
            Param("model", "The model's id.", required=True), Param("provider", "Who bills."),
            Param("at", f"The instant: {WHEN}. Default: now."), TZ,
            Param("history", "Every card of the model, in time order.", "flag", default=False),
        ),
        errors=(400, 404),
    ),
    Route(
        "POST", ("estimate",), "estimate", "What a call will cost before it is made: low, likely and high.",
        prices.estimate, "EstimatePage", body=bodies.EstimateBody, errors=(400, 404, 415),
    ),
)  # fmt: skip
"""Everything that is answered, but for the live stream and the document itself."""


def find(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request and the values in its path, which is as it was spelt. Raises Problem."""
    words = path.strip("/").split("/")
    allowed: list[str] = []
    for route in TABLE:
        if len(route.parts) != len(words):
            continue
        values: dict[str, str] = {}
        for part, word in zip(route.parts, words, strict=True):
            if part.startswith("{"):
                values[part[1:-1]] = unquote(word)
            elif part != word:
                break
        else:
            if route.method == method:
                return route, {name: _text(name, value) for name, value in values.items()}
            allowed.append(route.method)
    if allowed:
        known = ", ".join(allowed)
        raise Problem(405, f"{method[:20]} is not understood here.", todo=f"Use {known}.", allow=known)
    raise Problem(404, "Nothing is served at this path.", todo="/tally/v1/openapi.json lists what there is.")


def read_query(route: Route, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The values of a query string as the route's table says. Raises Problem."""
    known = {param.name: param for param in route.params}
    found: dict[str, Any] = {param.name: param.default for param in route.params if param.default is not None}
    given: set[str] = set()
    for name, text in pairs:
        param = known.get(name)
        if param is None:
            listed = ", ".join(known) or "none"
            raise Problem(400, f"{name[:60]!r} is nothing that this path asks for.", todo=f"Known: {listed}.")
        if param.kind == "list":
            words = [word.strip() for word in text.split(",")] if param.commas else [text]
            found.setdefault(name, []).extend(_text(name, word) for word in words if word)
            if len(found[name]) > 32:
                raise Problem(400, f"{name} is given too often.", todo="Give it up to 32 times.")
            continue
        if name in given:
            raise Problem(400, f"{name} is given more than once.")
        given.add(name)
        found[name] = _value(param, text)
    for param in route.params:
        if param.required and param.name not in found:
            raise Problem(400, f"The {param.name} is not named.", todo=f"Add ?{param.name}=...")
    return found


def _value(param: Param, text: str) -> Any:
    if param.kind == "flag":
        flags = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in flags:
            raise Problem(400, f"{param.name} is true or false, not {text[:60]!r}.")
        return flags[text.lower()]
    if param.kind == "count":
        if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= param.most:
            raise Problem(400, f"{param.name} is a whole number from 1 to {param.most:,}, not {text[:60]!r}.")
        return int(text)
    if param.choices and text not in param.choices:
        raise Problem(400, f"{param.name} cannot be {text[:60]!r}.", todo=f"It is one of: {', '.join(param.choices)}.")
    return _text(param.name, text)


def _text(name: str, text: str) -> str:
    if not text or len(text) > MOST_TEXT or not text.isprintable():
        raise Problem(400, f"{name} must be printable text of 1 to {MOST_TEXT} characters.")
    return text
