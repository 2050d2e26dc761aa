"""The front door: count, price, estimate, compare, record, report, spent, open; with the process's defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

from tallystick.core.models import provider_id
from tallystick.defaults import catalog, catalogue_folder, has_ledger, ledger_path, now, settings
from tallystick.defaults import open_ledger as open  # noqa: A004
from tallystick.errors import InputError, LedgerError

if TYPE_CHECKING:
    from tallystick.core.cost import Cost
    from tallystick.insight.compare import ModelCost, PromptDifference
    from tallystick.insight.report import Report
    from tallystick.insight.spend import Spent
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger
    from tallystick.metering.estimate import Estimate
    from tallystick.metering.rating import RawUsage
    from tallystick.tokens.count import Count

__all__ = [
    "catalog",
    "catalogue_folder",
    "compare",
    "count",
    "estimate",
    "has_ledger",
    "ledger_path",
    "now",
    "open",
    "price",
    "record",
    "report",
    "settings",
    "spent",
]

HISTORY = 1000
"""How many earlier calls of a call site an estimate looks at."""

EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)
"""Before this day nobody sold calls to language models; an earlier date is a slip."""

Context = Mapping[str, str | bool | Sequence[str]]
"""What decides a price besides the usage: service_tier, processing, region, ... Lists are for output_item_types."""

Messages = str | Sequence[Mapping[str, object]]
"""A text, or chat messages as the provider takes them."""


class SdkUsage(Protocol):
    """A usage object of a provider's SDK: anything that can be dumped to a mapping."""

    def model_dump(self) -> dict[str, Any]:
        """The object as plain values."""


def count(text: Messages, model: str) -> Count:
    """The tokens of a text or of chat messages for a model: a number, bounds, and how it was made.

    Exact where the model's tokenizer is known, an estimate that says so elsewhere; unknown models never fail.
    """
    if isinstance(text, bytes | bytearray) or not isinstance(text, str | Sequence):
        raise InputError(f"Text is counted, not {type(text).__name__}.", todo="Decode bytes; give messages as a list.")
    if isinstance(text, str):
        from tallystick.tokens.count import count_text

        return count_text(text, model)
    from tallystick.tokens.chat import count_messages

    return count_messages(text, model)


def price(
    usage: RawUsage | SdkUsage,
    model: str,
    *,
    provider: str | None = None,
    api: str | None = None,
    at: datetime | None = None,
    context: Context | None = None,
) -> Cost:
    """What a usage costs, line by line, with the rate of its own instant.

    `usage` is the provider's own usage object, as a mapping or as its SDK gives it, or counts in our kinds
    (`{"input": 1000}` or a `Usage`). Without `api` a raw object is read as its provider writes it. `at` is when the
    call was made (default: now); `context` says what the usage does not: service tier, batch processing, region.
    Raises UsageError for a usage that cannot be read, UnknownModelError or MissingRateError where no rate applies.
    """
    from tallystick.metering.rating import Call, rate

    call = Call(model=model, at=instant(at), provider=_provider(provider), api=api, context=context or {})
    rated = rate(_plain(usage), call, catalog())
    if rated.unpriced is not None:
        raise rated.unpriced
    if rated.cost is None:
        raise InputError(rated.reading.fault or "The usage states no counts, so there is nothing to price.")
    return rated.cost


def estimate(
    messages: Messages,
    model: str,
    *,
    max_output: int | None = None,
    provider: str | None = None,
    at: datetime | None = None,
    ledger: Ledger | None = None,
    agent: str | None = None,
) -> Estimate:
    """What a call will cost: low, likely and high, and on what basis.

    The input is counted; the answer's length comes from the history of the call site (provider, model and agent) once
    the ledger (the default one, where none is given) has 20 calls of it, else from a stated default, and never exceeds
    `max_output`. Raises UnknownModelError or MissingRateError where no rate applies.
    """
    from tallystick.metering.estimate import estimate_call

    when = instant(at)
    found = catalog().find(model, at=when, provider=_provider(provider))
    history, notes = _history(ledger, found.provider, found.model, agent)
    return estimate_call(count(messages, model), found, when, max_output=max_output, history=history, notes=notes)


@overload
def compare(
    text: str,
    other: None = None,
    *,
    models: Sequence[str] | str,
    output_tokens: int = 500,
    calls: int = 1000,
    at: datetime | None = None,
) -> tuple[ModelCost, ...]: ...


@overload
def compare(
    text: str,
    other: str,
    *,
    models: Sequence[str] | str,
    output_tokens: int = 500,
    calls: int = 1000,
    at: datetime | None = None,
) -> PromptDifference: ...


def compare(
    text: str,
    other: str | None = None,
    *,
    models: Sequence[str] | str,
    output_tokens: int = 500,
    calls: int = 1000,
    at: datetime | None = None,
) -> tuple[ModelCost, ...] | PromptDifference:
    """One text across several models (`models` is a list), or two prompts on one model (`models` is its name).

    Across models: each model's own tokenizer, the cost of one call with an answer of `output_tokens`, and of `calls`
    calls; a model without a rate keeps its count, its cost is None and `problem` says why. Two prompts: tokens and cost
    of each, by section, and the break-even in output tokens. Raises InputError for counts that make no sense.
    """
    from tallystick.insight.compare import compare_models, compare_prompts

    names = [models] if isinstance(models, str) else list(models)
    if other is None:
        return compare_models(text, names, catalog(), instant(at), output_tokens=output_tokens, calls=calls)
    if len(names) != 1:
        raise InputError("Two prompts are compared on one model.", todo="Name exactly one model.")
    return compare_prompts(text, other, names[0], catalog(), instant(at))


def record(
    usage: RawUsage | SdkUsage | None,
    model: str,
    *,
    provider: str | None = None,
    api: str | None = None,
    at: datetime | None = None,
    context: Context | None = None,
    ledger: Ledger | None = None,
    run: str | None = None,
    tags: Mapping[str, object] | None = None,
    **named: object,
) -> Entry:
    """Writes one call into the ledger and returns its entry.

    `usage` is what the provider reported, or None when it reported nothing. An unknown model is written too, with
    `cost` None: it is never taken as free. `tags` and other keywords (`user="ada"`) say who or what it was for. Raises
    LedgerError when the ledger cannot be written, InputError for bad input; then nothing was written.
    """
    from tallystick.ledger.ids import new_call_id
    from tallystick.metering.rating import Call
    from tallystick.metering.recording import entry_for

    when = instant(at)
    if not EARLIEST <= when <= now() + timedelta(days=1):
        raise InputError(
            f"A call cannot have been made on {when.date().isoformat()}.",
            money="Nothing was written.",
            todo=f"Give the instant of the call, from {EARLIEST:%Y-%m-%d} to now.",
        )
    call = Call(model=model, at=when, provider=_provider(provider), api=api, context=context or {})
    call_id = new_call_id()
    entry = entry_for(
        None if usage is None else _plain(usage),
        call,
        catalog(),
        call_id=call_id,
        recorded_at=now(),
        run_id=run,
        tags={**(tags or {}), **named},
    )
    if ledger is not None:
        ledger.append([entry])
        return entry
    with open() as held:
        held.append([entry])
    return entry


def spent(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    ledger: Ledger | None = None,
    model: str | None = None,
    **tags: str,
) -> Spent:
    """What the calls in the ledger cost, from `since` to before `until`, for the given tags, and what that leaves out.
    Before the first call there is no ledger, and nothing was spent. Raises LedgerError for one that cannot be read."""
    from tallystick.insight.spend import spend

    if ledger is not None:
        return spend(ledger, since=since, until=until, model=model, tags=tags)
    with open(None if has_ledger() else ":memory:", read_only=True) as held:
        return spend(held, since=since, until=until, model=model, tags=tags)


def report(
    *,
    per: str | None = None,
    by: Sequence[str] | str = (),
    since: datetime | None = None,
    until: datetime | None = None,
    tz: str | None = None,
    breakdown: bool = False,
    ledger: Ledger | None = None,
) -> Report:
    """Rows of spend by names (`model`, `run`, any tag) and per `hour`, `day`, `week`, `month`, `year`, `block` (five
    hours, as coding agents bill) or `run`, which print as a table and go on as JSON, a data frame or a chart.

    `tz` is the time zone of periods (default: the ledger's). `breakdown` shows every kind of usage. Raises InputError
    for a grouping that makes no sense, LedgerError for a ledger that cannot be read.
    """
    from tallystick.insight.report import report as made

    names = (by,) if isinstance(by, str) else tuple(by)
    place = None if ledger is not None or has_ledger() else ":memory:"
    with contextlib.nullcontext(ledger) if ledger is not None else open(place, read_only=True) as held:
        return made(held, per=per, by=names, since=since, until=until, tz=tz, breakdown=breakdown, catalog=catalog())


def _history(
    ledger: Ledger | None, provider: str, model: str, agent: str | None
) -> tuple[Sequence[int], tuple[str, ...]]:
    """The output tokens of a call site's latest calls, and a note where the ledger cannot be read."""
    if ledger is not None:
        return _answers(ledger, provider, model, agent), ()
    if not has_ledger():
        return (), ()
    try:
        with open(read_only=True) as held:
            return _answers(held, provider, model, agent), ()
    except LedgerError as error:
        return (), (f"no history: {error.what}",)


def _answers(ledger: Ledger, provider: str, model: str, agent: str | None) -> list[int]:
    """The output tokens of a call site's latest calls, oldest first."""
    from tallystick.core.attribution import Tags
    from tallystick.ledger.query import Query

    tags = Tags() if agent is None else Tags(agent=agent)
    query = Query(provider=provider, model=model, tags=tags, status="ok", limit=HISTORY, newest_first=True)
    outputs = [entry.usage.output_tokens for entry in ledger.read(query) if entry.usage is not None]
    return outputs[::-1]


def instant(at: datetime | None) -> datetime:
    """The given instant in UTC, or now. Raises InputError for one without a time zone: a local time means different
    rates in different places."""
    if at is None:
        return now()
    if not isinstance(at, datetime):
        raise InputError(f"{at!r} is not an instant.", todo="Use a datetime with a time zone, such as UTC.")
    if at.tzinfo is None:
        raise InputError(f"{at.isoformat()} has no time zone.", todo="Use an aware datetime, such as UTC.")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InputError(f"{at.isoformat()} is outside the calendar.") from None


def _plain(usage: RawUsage | SdkUsage) -> RawUsage:
    dump = None if isinstance(usage, Mapping | list | tuple | type) else getattr(usage, "model_dump", None)
    return cast("RawUsage", dump() if callable(dump) else usage)


def _provider(name: str | None) -> str | None:
    return None if name is None else provider_id(name)
