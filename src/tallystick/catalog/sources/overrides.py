"""Overrides: reviewed, dated, sourced corrections in TOML. `overrides/rules.toml` describes the format at its top."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from importlib.resources.abc import Traversable
from typing import Any, Final

from tallystick.catalog.sources.row import MILLION, make_rate, midnight
from tallystick.core.rates import Cliff, Rate, Variant, Window
from tallystick.core.usage import TOKEN_KINDS, is_kind
from tallystick.errors import CatalogError

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PER: Final = {
    "milliseconds_input": 3_600_000, "milliseconds_output": 3_600_000, "images": 1,
    "characters_input": MILLION, "characters_output": MILLION, "cache_token_hours": MILLION,
}  # fmt: skip
_TABLES: Final = frozenset({"card", "patch", "settle", "derive", "multiplier", "accept", "model"})


@dataclass(frozen=True)
class Entry:
    """One reviewed statement about some models of a provider, between two days (None: open)."""

    table: str
    provider: str
    models: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    rates: Mapping[str, Rate]
    variants: tuple[Variant, ...]
    source: str
    why: str
    reviewed: str
    raw: Mapping[str, Any]


@dataclass
class Overrides:
    """All override files: the statements by table, and the tables on providers and makers."""

    providers: Mapping[str, Any]
    entries: dict[str, list[Entry]] = field(default_factory=dict)

    def of(self, table: str) -> list[Entry]:
        """The statements of one table, in the files' order."""
        return self.entries.get(table, [])


def read(folder: Traversable) -> Overrides:
    """The override files of a folder. Raises CatalogError for one that cannot be read or lacks its source or review."""
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    result = Overrides({})
    for file in files:
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
            if file.name == "providers.toml":
                result.providers = data
                continue
            for table, items in data.items():
                result.entries.setdefault(table, []).extend(_entry(table, item) for item in items)
        except (tomllib.TOMLDecodeError, KeyError, ValueError, InvalidOperation, CatalogError) as error:
            raise CatalogError(f"The override file {file.name} is not valid: {error}.") from error
    return result


def _entry(table: str, item: Mapping[str, Any]) -> Entry:
    if table not in _TABLES:
        raise CatalogError(f"unknown table {table!r}")
    for needed in ("provider", "source", "reviewed", "why"):
        if needed not in item:
            raise CatalogError(f"an entry of [[{table}]] lacks {needed!r}: {dict(item)}")
    models = item.get("models", [item["model"]] if "model" in item else [])
    return Entry(
        table, item["provider"], tuple(models), _instant(item.get("from")), _instant(item.get("to")),
        rates_of(item.get("rates", {})), tuple(_variants(item.get("variant", ()))), item["source"], item["why"],
        str(item["reviewed"]), item,
    )  # fmt: skip


def _instant(day: date | datetime | None) -> datetime | None:
    if day is None or isinstance(day, datetime):
        return day
    return midnight(day)


def rates_of(texts: Mapping[str, str]) -> dict[str, Rate]:
    """Rates from text: `"2.5"`, or with steps `"2.5; 5 above 272000"` and `"2; 4 from 200000"` (inclusive). US dollars
    per million tokens or characters, per hour of audio, per image, and per thousand of anything else."""
    rates = {}
    for kind, text in texts.items():
        if not is_kind(kind):
            raise CatalogError(f"{kind!r} is not a kind of usage")
        base, *steps = (part.strip() for part in text.split(";"))
        per = MILLION if kind in TOKEN_KINDS else _PER.get(kind, 1000)
        rates[kind] = make_rate(Decimal(base), per, [_step(step) for step in steps])
    return rates


def _step(text: str) -> Cliff:
    usd, word, size = text.split()
    if word not in ("above", "from"):
        raise CatalogError(f"a step is written `USD above TOKENS` or `USD from TOKENS`, not {text!r}")
    return Cliff(int(size), Decimal(usd), inclusive=True) if word == "from" else Cliff(int(size), Decimal(usd))


def _variants(items: Iterable[Mapping[str, Any]]) -> Iterable[Variant]:
    for item in items:
        when = tuple(sorted(item.get("when", {}).items()))
        windows = tuple(_window(window) for window in item.get("windows", ()))
        yield Variant(item["name"], rates_of(item["rates"]), when, windows, item.get("source", ""))


def _window(text: str) -> Window:
    """`"01:00-04:00"` or `"01:00-04:00 mon-fri"`, in UTC."""
    hours, _, days = text.partition(" ")
    start, end = (int(time[:2]) * 60 + int(time[3:]) for time in hours.split("-"))
    if not days:
        return Window(start, end)
    first, _, last = days.partition("-")
    numbers = range(_DAYS.index(first) + 1, _DAYS.index(last or first) + 2)
    return Window(start, end, tuple(numbers))
