"""Reading: files of a provider's report, whatever their shape, put together into statements.

A file holds one page or several (one after another, one a line, or in a list), or CSV with a header. Pages of one form
are one statement; a result that appears twice is counted once, and the later file wins.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo

import msgspec

from tallystick.errors import InputError
from tallystick.insight.provider_reports import anthropic, openai, openrouter
from tallystick.insight.provider_reports.figures import (
    BY_CACHE,
    BY_LIFETIME,
    BY_SIDE,
    Figure,
    Statement,
    items,
    name,
    shown,
    span,
    table,
)

MAX_BYTES: Final = 1 << 28
"""A report's files together are at most this large (256 MB)."""

Bucket = tuple[datetime, datetime]
ReadResult = Callable[[object, Bucket, str], tuple[list[Figure], list[str]]]


class Form(msgspec.Struct, frozen=True):
    """What is known of one kind of report beforehand. `read` reads a result of a bucket; None for flat rows."""

    provider: str
    title: str
    classes: Mapping[str, str]
    counted: frozenset[str]
    money: bool
    read: ReadResult | None = None
    left_out: frozenset[str] = frozenset()
    other_apis: tuple[str, ...] = ()


FORMS: Final = {
    "openai.usage": Form(
        "openai", "OpenAI usage of completions", BY_CACHE, openai.COUNTED, False, openai.usage_figures,
        other_apis=openai.NOT_COMPLETIONS,
    ),
    "openai.costs": Form("openai", "OpenAI costs", BY_CACHE, frozenset(), True, openai.cost_figures),
    "anthropic.usage": Form(
        "anthropic", "Anthropic usage of messages", BY_LIFETIME, anthropic.COUNTED, False, anthropic.usage_figures
    ),
    "anthropic.costs": Form(
        "anthropic", "Anthropic costs", BY_LIFETIME, frozenset(), True, anthropic.cost_figures, anthropic.LEFT_OUT
    ),
    "openrouter.activity": Form("openrouter", "OpenRouter activity", BY_SIDE, openrouter.COUNTED, True),
    "openrouter.generation": Form("openrouter", "OpenRouter generations", BY_SIDE, openrouter.COUNTED_CALL, True),
}  # fmt: skip


def read_reports(
    files: Sequence[tuple[str, bytes]], *, zone: ZoneInfo, provider: str | None = None
) -> tuple[Statement, ...]:
    """The statements in the files (name and content). `zone` is where the days of a report begin that names days only.
    `provider` is who bills, where it is not whose form the report has. Raises InputError, with the file and place, for
    anything that cannot be read."""
    if sum(len(data) for _, data in files) > MAX_BYTES:
        raise InputError("The report is larger than 256 MB.", todo="Compare a shorter time at once.")
    collected: dict[str, _Pages] = {}
    empty: list[tuple[str, Mapping[str, Any], str]] = []
    for label, data in files:
        for where, document in _documents(label, data):
            for place, page in _pages(where, document):
                form = _form(page, place)
                if form.endswith("?"):
                    empty.append((form, page, place))
                else:
                    collected.setdefault(form, _Pages(form)).add(page, place, zone)
    for form, page, place in empty:
        family = [known for known in collected if known.startswith(form[:-1])] or [f"{form[:-1]}.costs"]
        for known in family:
            collected.setdefault(known, _Pages(known)).add(page, place, zone)
    if not collected:
        raise InputError("The report holds no figures.", todo="Give the provider's answer as it came.")
    statements = tuple(pages.statement(provider) for pages in collected.values())
    if not any(one.buckets or one.figures for one in statements):
        raise InputError("The report covers no time at all.", todo="Ask the provider for the days to compare.")
    return statements


class _Pages:
    """The pages of one form, put together."""

    def __init__(self, form: str) -> None:
        self._name = form
        self._form = FORMS[form]
        self._results: dict[tuple[object, ...], list[Figure]] = {}
        self._buckets: dict[Bucket, None] = {}
        self._notes: list[str] = []
        self._tiered = False
        self._ended = False
        self._repeated = 0

    def add(self, page: Mapping[str, Any], where: str, zone: ZoneInfo) -> None:
        """Takes in a page."""
        self._ended |= page.get("has_more") is not True
        if self._form.read is None:
            self._add_rows(page, where, zone)
            return
        for number, value in enumerate(items(page.get("data"), f"{where}: data"), 1):
            place = f"{where}, bucket {number}"
            bucket = table(value, place)
            limits = span(
                bucket.get("start_time", bucket.get("starting_at")),
                bucket.get("end_time", bucket.get("ending_at")),
                place,
            )
            self._buckets[limits] = None
            seen: dict[tuple[object, ...], int] = {}
            for row, result in enumerate(items(bucket.get("results") or bucket.get("result") or [], place), 1):
                figures, faults = self._form.read(result, limits, f"{place}, result {row}")
                self._notes += faults
                self._tiered |= result.get("service_tier") is not None or result.get("batch") is not None
                identity = (*limits, *_identity(result))
                # Within one page results that look alike are parts of one sum; on another page they are a repetition.
                seen[identity] = seen.get(identity, 0) + 1
                self._keep((*identity, seen[identity]), figures)

    def statement(self, provider: str | None) -> Statement:
        """All that was taken in."""
        form, notes = self._form, list(self._notes)
        if self._repeated:
            notes.append(f"{self._repeated:,} results appear more than once; the later ones were taken")
        if not self._ended:
            notes.append("the last page says that more pages follow (has_more): give them all")
        return Statement(
            provider=provider or form.provider,
            title=form.title,
            figures=tuple(figure for figures in self._results.values() for figure in figures),
            buckets=tuple(sorted(self._buckets)),
            classes=form.classes,
            counted=form.counted,
            money=form.money,
            tiered=self._tiered,
            complete=self._ended,
            left_out=form.left_out,
            other_apis=form.other_apis,
            notes=tuple(notes),
        )

    def _add_rows(self, page: Mapping[str, Any], where: str, zone: ZoneInfo) -> None:
        for number, row in enumerate(page["data"], 1):
            place = f"{where}, row {number}"
            if self._name == "openrouter.generation":
                figures = openrouter.generation_figures(table(row, place), place)
                self._keep((figures[0].call,), figures)
                continue
            figures = openrouter.activity_figures(table(row, place), zone, place)
            self._buckets[figures[0].start, figures[0].end] = None
            self._keep((figures[0].start, *_identity(row)), figures)

    def _keep(self, identity: tuple[object, ...], figures: list[Figure]) -> None:
        self._repeated += identity in self._results
        self._results[identity] = figures


_FIGURES: Final = frozenset(
    {"usage", "byok_usage_inference", "requests", "amount", "quantity", "num_model_requests", "prompt_tokens",
     "completion_tokens", "reasoning_tokens"}
)  # fmt: skip


def _identity(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What a result is about: all that it says but its figures."""
    return tuple(
        (field, value)
        for field, value in sorted(row.items())
        if (value is None or isinstance(value, str | bool)) and field not in _FIGURES and not field.endswith("_tokens")
    )


def _form(page: Mapping[str, Any], where: str) -> str:
    """The form of a page; `openai?` and `anthropic?` where only the provider can be told."""
    data = page["data"]
    first = next((row for row in data if isinstance(row, Mapping)), None)
    if first is None:
        if not data and page.get("object") == "page":
            return "openai?"
        raise InputError(f"{where} is empty or not a report.", todo="Give the provider's answer as it came.")
    if openrouter.is_activity(first):
        return "openrouter.activity"
    if openrouter.is_generation(first):
        return "openrouter.generation"
    results = [row for bucket in data if isinstance(bucket, Mapping) for row in _results(bucket)]
    row = next((row for row in results if isinstance(row, Mapping)), None)
    if "start_time" in first:
        stated = None if row is None else row.get("object")
        if row is not None and stated not in (openai.USAGE, openai.COSTS):
            raise InputError(
                f"{where} is a report of {shown(stated)}, which cannot be compared yet.",
                todo="Give OpenAI's usage of completions, or its costs.",
            )
        return "openai?" if row is None else "openai.usage" if stated == openai.USAGE else "openai.costs"
    if "starting_at" in first:
        if row is None:
            return "anthropic?"
        return "anthropic.costs" if "amount" in row else "anthropic.usage"
    raise InputError(
        f"{where} is not a report that can be read: its rows have {', '.join(map(str, list(first)[:6]))}.",
        todo="Known are OpenAI's usage of completions and costs, Anthropic's usage and costs, OpenRouter's activity "
        "(JSON or CSV) and generations.",
    )


def _results(bucket: Mapping[str, Any]) -> list[Any]:
    found = bucket.get("results") or bucket.get("result") or []
    return found if isinstance(found, list) else []


def _pages(where: str, document: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The pages in a JSON document: one, a list of them, or rows without a page around them."""
    if isinstance(document, list):
        if document and all(isinstance(part, Mapping) and "data" in part for part in document):
            for number, part in enumerate(document, 1):
                yield from _pages(f"{where}, page {number}", part)
        else:
            yield where, {"data": document}
        return
    page = table(document, where)
    if "error" in page and "data" not in page:
        raise InputError(f"{where} is an error of the provider, not a report: {shown(page['error'])}.")
    data = page.get("data", page)
    rows = [data] if isinstance(data, Mapping) else items(data, f"{where}: data")
    yield where, {**page, "data": rows}


def _documents(label: str, data: bytes) -> Iterator[tuple[str, object]]:
    """The JSON values in a file, one after another, or its CSV rows as one list."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{label} is not UTF-8 text.", todo="Save it as UTF-8.") from None
    if not text.strip():
        raise InputError(f"{label} is empty.", todo="Give the provider's answer as it came.")
    if text.lstrip()[0] not in "{[":
        yield label, _csv_rows(label, text)
        return
    decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse)
    position, number = 0, 0
    while (position := _next(text, position)) < len(text):
        number += 1
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise InputError(f"{label} is not valid JSON: {error}.") from None
        except RecursionError:
            raise InputError(f"{label} is nested too deeply to be a report.") from None
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
        except (ValueError, ArithmeticError):
            raise InputError(f"{label} holds a number that is too long.") from None
        yield (label if number == 1 else f"{label}, document {number}"), value


def _next(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n,":
        position += 1
    return position


def _refuse(constant: str) -> NoReturn:
    raise InputError(f"{constant} is not a number that a bill can hold.")


def _csv_rows(label: str, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
    except csv.Error as error:
        raise InputError(f"{label} is neither JSON nor CSV: {error}.") from None
    if not rows or not (openrouter.is_activity(rows[0]) or openrouter.is_generation(rows[0])):
        columns = name(", ".join((reader.fieldnames or [])[:8])[:200], f"{label}: its first line") or "none"
        raise InputError(
            f"{label} is neither JSON nor a CSV that can be read; its columns are: {columns}.",
            todo="OpenRouter's activity has date, model, usage, requests, prompt_tokens and completion_tokens.",
        )
    return rows
