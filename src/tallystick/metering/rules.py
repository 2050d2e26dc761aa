"""Rules: a budget as people write it, `$50/day` for `team=a`, and the Budget that it means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from tallystick.config import Config
from tallystick.core.attribution import Tags
from tallystick.core.models import provider_id
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.errors import ConfigError, InputError
from tallystick.ledger.budget import Budget

SCOPES: Final = ("key", "team", "user", "agent", "project", "run", "run_name", "step", "model", "provider")
"""What a budget's scope may name as it is; any other tag is written `tag:NAME`, so that a slip is noticed."""

SOURCES: Final = ("log", "otlp", "manual", "import")
MOST_ALERT: Final = 1000

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIMIT: Final = re.compile(
    r"(?P<sign>-?)(?P<dollar>\$?)(?P<number>[0-9][0-9,_]*(?:\.[0-9]+)?)\s*(?P<scale>[kKMG]?)\s*"
    r"(?P<unit>usd|tokens?|calls?|requests?)?(?:\s*(?:/|\bper\b)\s*(?P<period>[0-9]*\s*[A-Za-z]+))?",
    re.IGNORECASE,
)
_SCALES: Final = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_SHORT: Final = {"second": "1s", "minute": "1m", "min": "1m", "ever": "lifetime"}
_FORM: Final = 'Write "$50/day", "1M tokens/month", "100 calls/1m" or "$20".'


def parse_limit(text: str, tz: str = "UTC", anchor: int = 1) -> tuple[int, str, Period]:
    """Reads a limit with its period: `$50/day`, `1M tokens/month`, `100 calls/1m`, `$20` (for a lifetime). Returns the
    amount in the unit's smallest part (picodollars, tokens, calls), the unit and the period. Raises InputError."""
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text[:60]!r} is not a limit.", money="Nothing was changed.", todo=_FORM)
    if match["sign"]:
        raise InputError(f"The limit {text!r} is negative.", money="Nothing was changed.", todo=_FORM)
    word = (match["unit"] or "").lower()
    if bool(match["dollar"]) == bool(word):
        raise InputError(f"{text!r} does not say of what.", money="Nothing was changed.", todo=_FORM)
    number = Decimal(match["number"].replace(",", "").replace("_", "")) * _SCALES[match["scale"].lower()]
    period = (match["period"] or "lifetime").replace(" ", "").lower()
    try:
        stretch = Period.parse(_SHORT.get(period, period), tz, anchor)
    except InputError as error:
        raise InputError(f"{text!r}: {error.what}", money="Nothing was changed.", todo=error.todo) from None
    if match["dollar"] or word == "usd":
        return Money.usd(number).pico, "usd", stretch
    if number != number.to_integral_value():
        raise InputError(f"{text!r} is not a whole number.", money="Nothing was changed.", todo=_FORM)
    return int(number), "tokens" if word.startswith("token") else "calls", stretch


def limit_words(budget: Budget) -> str:
    """A budget's limit as people write it: `$50.00/day`, `100 calls/1m`, `$20.00`."""
    return budget.shown(budget.limit) + ("" if budget.period.unit == "lifetime" else f"/{period_words(budget.period)}")


def period_words(period: Period) -> str:
    """A period as people write it: `day`, `1m`, `lifetime`."""
    if period.length is None:
        return period.unit
    seconds = int(period.length.total_seconds())
    for suffix, size in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{suffix}"
    return f"{seconds}s"


def make_budget(name: str, rule: Mapping[str, object], created_at: datetime | None = None) -> Budget:
    """The budget that a rule means: `limit` (text), `scope` (a table of names and values), `each` (names), `hard`,
    `failure` (closed or open), `sources`, `tz`, `anchor`, `alerts` (percentages). Raises InputError, in one sentence
    about the first thing that makes no sense."""
    if not _NAME.fullmatch(name):
        raise _wrong(f"{name[:80]!r} cannot name a budget.", "Use letters, digits, dots, hyphens and underscores.")
    limit, tz, anchor = rule.get("limit"), rule.get("tz", "UTC"), rule.get("anchor", 1)
    if not isinstance(limit, str):
        raise _wrong(f"The budget {name!r} needs a limit as text.", _FORM)
    if not isinstance(tz, str) or type(anchor) is not int:
        raise _wrong("tz is the name of a time zone and anchor a whole number.", "")
    amount, unit, period = parse_limit(limit, tz, anchor)
    scope = rule.get("scope", {})
    if not isinstance(scope, Mapping):
        raise _wrong("A scope is a table of names and values.", 'Write scope = {team = "a"}.')
    each = tuple([scope_name(one) for one in _texts(rule, "each")])
    named = {scope_name(key): value for key, value in scope.items()}
    if "provider" in named:
        named["provider"] = provider_id(str(named["provider"]))
    if len(set(each)) != len(each) or set(each) & set(named):
        raise _wrong("Each name may stand once, in scope or in each.", "")
    alerts = rule.get("alerts", ())
    if not isinstance(alerts, list | tuple) or not all(type(one) is int and 0 < one <= MOST_ALERT for one in alerts):
        raise _wrong("alerts are percentages of the limit.", "Write alerts = [50, 80, 100].")
    hard, failure = rule.get("hard", True), rule.get("failure", "closed")
    if not isinstance(hard, bool) or not isinstance(failure, str):
        raise _wrong("hard is true or false, and failure is closed or open.", "")
    sources = _texts(rule, "sources")
    if not set(sources) <= set(SOURCES):
        raise _wrong(f"sources are among {', '.join(SOURCES)}.", "Client and gateway always count.")
    return Budget(
        budget_id=name,
        limit=amount,
        unit=unit,
        period=period,
        scope=Tags(named),
        each=each,
        hard=hard,
        failure=failure,
        sources=sources,
        alerts=tuple(sorted(set(alerts))),
        created_at=created_at,
    )


def budgets_of(config: Config, created_at: datetime | None = None) -> tuple[Budget, ...]:
    """The budgets of a configuration; one without a time zone of its own takes the report's. Raises ConfigError that
    names the section."""
    found = []
    for name, rule in config.budgets.items():
        try:
            found.append(make_budget(name, {"tz": config.timezone or "UTC", **rule}, created_at))
        except InputError as error:
            raise ConfigError(f"[budgets.{name}] in {config.path or 'the configuration'}: {error}") from None
    return tuple(found)


def scope_name(name: object) -> str:
    """A name that a scope may bear. Raises InputError that names the nearest one."""
    if isinstance(name, str) and (name in SCOPES or (name.startswith("tag:") and len(name) > len("tag:"))):
        return name
    near = difflib.get_close_matches(str(name), SCOPES, 1, 0.5)
    hint = f"Did you mean {near[0]!r}? " if near else f"Known are {', '.join(SCOPES)}. "
    raise _wrong(f"{str(name)[:60]!r} is not a scope.", f"{hint}Any other tag is written tag:NAME.")


def _texts(rule: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = rule.get(key, ())
    listed: Iterable[object] = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else [0]
    found = [text for text in listed if isinstance(text, str)]
    if len(found) != len(list(listed)):
        raise _wrong(f"{key} is a list of texts.", "")
    return tuple(found)


def _wrong(what: str, todo: str) -> InputError:
    return InputError(what, money="Nothing was changed.", todo=todo)
