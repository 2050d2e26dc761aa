"""genai-prices: dated, sourced rates with tiers, hours and service tiers. Its data file is Python and is executed."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tallystick.catalog.sources.matching import names_of
from tallystick.catalog.sources.row import Log, Row, make_rate, midnight, plain
from tallystick.catalog.sources.variants import Period, Stated, variants_for
from tallystick.core.models import provider_id
from tallystick.core.rates import Cliff, Rate, RateCard, Variant, Window
from tallystick.errors import CatalogError

_TOKENS: Final = {
    "input": "input", "output": "output", "cache_read": "cache_read", "cache_write": "cache_write",
    "cache_write_5m": "cache_write_5m", "cache_write_1h": "cache_write_1h", "input_audio": "audio_input",
    "cache_audio_read": "audio_cache_read", "output_audio": "audio_output", "input_image": "image_input",
    "cache_image_read": "image_cache_read", "output_image": "image_output", "input_video": "video_input",
    "cache_video_read": "video_cache_read", "output_video": "video_output", "output_reasoning": "reasoning",
    "output_citation": "citation",
}  # fmt: skip
_OTHER: Final = {
    "audio_hours": ("milliseconds_input", 3_600_000), "input_audio_hours": ("milliseconds_input", 3_600_000),
    "output_audio_hours": ("milliseconds_output", 3_600_000), "input_mchars": ("characters_input", 1_000_000),
    "web_searches_kcount": ("fee:web_search", 1000), "storage_searches_kcount": ("fee:file_search", 1000),
    "social_searches_kcount": ("fee:social_search", 1000), "rerank_searches_kcount": ("searches", 1000),
    "requests_kcount": ("requests", 1000), "input_document_kpages": ("pages", 1000),
    "input_annotated_document_kpages": ("fee:annotated_pages", 1000),
}  # fmt: skip
_URL: Final = re.compile(r"https?://[^\s),]+[^\s),.]")
_PROFILE: Final = re.compile(r"(?:global|regional)\.(?=[a-z0-9-]+\.)")
_AREA: Final = re.compile(r"^(?:global|us-gov|us|eu|apac|au|jp|ca|sa|me|af|in)\.(?=[a-z0-9-]+\.)")
_VERSION: Final = re.compile(r"-v\d+(?::\d+)?$")
_INCLUSIVE_TAIL: Final = 999
"""A tier that starts at 199,999 fires on more than that: the source's way to write "200,000 and above"."""


@dataclass(frozen=True)
class Reading:
    """What one source says: its version, its rows, the name of its licence."""

    version: str
    rows: list[Row]
    fallbacks: dict[str, list[str]]


def read(folder: Path, retrieved_at: str, log: Log) -> Reading:
    """The rows of the genai-prices release unpacked in `folder`. Executes its data file; raises CatalogError when it
    cannot be loaded."""
    version, providers = _load(folder)
    rows: list[Row] = []
    fallbacks = {}
    for provider in providers:
        rows += [_row(provider, model, (f"genai-prices {version}", retrieved_at), log) for model in provider.models]
        if provider.fallback_model_providers:
            fallbacks[provider_id(provider.id)] = [provider_id(name) for name in provider.fallback_model_providers]
    return Reading(version, rows, fallbacks)


def _load(folder: Path) -> tuple[str, list[Any]]:
    path = folder / "genai_prices" / "data.py"
    found = [info.name.split("-")[1].removesuffix(".dist") for info in folder.glob("genai_prices-*.dist-info")]
    if not path.is_file() or len(found) != 1:
        raise CatalogError(f"{folder} does not hold one unpacked genai-prices release.", todo="Unpack its wheel there.")
    version = found[0].removesuffix("-info")
    try:
        importlib.import_module("genai_prices.types")
        # The name gives the file its package, so that its relative import of the types resolves to the installed ones.
        spec = importlib.util.spec_from_file_location("genai_prices.tally_data", path)
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    except ImportError as error:
        raise CatalogError(
            f"genai-prices cannot be loaded: {error}.", todo=f"Install genai-prices=={version} beside tallystick."
        ) from error
    return version, list(module.providers)


def _row(provider: Any, model: Any, origin: tuple[str, str], log: Log) -> Row:
    release, retrieved_at = origin
    biller = provider_id(provider.id)
    name = model.id.lower().rstrip("-")
    names = names_of(model.match)
    for pattern in names.dropped:
        log.note("genai-prices: match rule dropped", f"{biller}/{name} {pattern}")
    url = _URL.search(model.price_comments or "") or _URL.search(" ".join(provider.pricing_urls or []))
    source = release + (f", {url[0]}" if url else "")
    aliases = _profile_names(name, names.ids) if biller == "aws" else names.ids
    row = Row(biller, name, dated=names.dated, aliases=aliases - {name}, context_window=model.context_window)
    periods = _periods(model, biller, log)
    stated = [_stated(variant, biller, log) for variant in model.price_variants or ()]
    for period in periods:
        if not period.rates:
            continue
        tiers = variants_for(period, periods, stated, release, lambda fault: log.note(fault, f"{biller}/{name}"))
        variants = (*period.windows, *tiers)
        since = None if period.start is None else midnight(period.start)
        until = None if period.end is None else midnight(period.end)
        row.cards.append(RateCard(biller, name, period.rates, since, until, source, retrieved_at, variants=variants))
    if not row.cards:
        log.note("genai-prices: no rates, unknown", f"{biller}/{name}")
    return row


def _profile_names(row_id: str, literals: set[str]) -> set[str]:
    """Bedrock names under the row's own prefix (`global.`, `regional.` or none), with and without the version."""
    found = _PROFILE.match(row_id)
    prefix = found[0] if found else ""
    names = {prefix + _AREA.sub("", literal) for literal in literals} | {row_id}
    return names | {_VERSION.sub("", name) for name in names}


def _periods(model: Any, biller: str, log: Log) -> list[Period]:
    conditional = model.prices if isinstance(model.prices, list) else None
    if conditional is None:
        return [Period(None, None, _rates(model.prices, biller, log))]
    dated: list[tuple[date | None, dict[str, Rate]]] = []
    windows: list[Variant] = []
    for price in conditional:
        rates = _rates(price.prices, biller, log)
        if hasattr(price.constraint, "start_time"):
            windows.append(_window(price.constraint, rates))
        else:
            dated.append((getattr(price.constraint, "start_date", None), rates))
    dated[0] = (None, dated[0][1])
    starts = [start or date.min for start, _ in dated]
    if starts != sorted(set(starts)):
        raise CatalogError(f"genai-prices: the dated prices of {model.id} are not in order of time.")
    ends = [start for start, _ in dated[1:]] + [None]
    return [Period(start, end, rates, tuple(windows)) for (start, rates), end in zip(dated, ends, strict=True)]


def _window(constraint: Any, rates: Mapping[str, Rate]) -> Variant:
    start, end = (moment.hour * 60 + moment.minute for moment in (constraint.start_time, constraint.end_time))
    hours = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02} UTC"
    return Variant(hours, rates, windows=(Window(start, end),))


def _stated(variant: Any, biller: str, log: Log) -> Stated:
    start = getattr(variant.constraint, "start_date", None)
    if variant.constraint is not None and start is None:
        raise CatalogError("genai-prices: a price variant has a constraint of an unknown form.")
    return Stated(tuple(variant.when.items()), start, _rates(variant.prices, biller, log))


def _rates(prices: Any, biller: str, log: Log) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for key, value in _prices(prices):
        kind, per = _kind(key)
        if kind is None:
            log.note("genai-prices: no kind for this price", f"{biller} {key}")
            continue
        rate = _rate(value, per, inclusive=biller == "x-ai")
        if rates.setdefault(kind, rate) != rate:
            raise CatalogError(f"genai-prices: two different prices for {kind} at {biller}.")
    return rates


def _prices(prices: Any) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in sorted(vars(prices).items()) if value is not None and key[0] != "_")


def _kind(key: str) -> tuple[str | None, int]:
    if key.endswith("_mtok"):
        return _TOKENS.get(key.removesuffix("_mtok")), 1_000_000
    return _OTHER.get(key, (None, 0))


def _rate(value: Any, per: int, *, inclusive: bool) -> Rate:
    if isinstance(value, Decimal):
        return make_rate(plain(value), per)
    cliffs = tuple(_cliff(tier.start, plain(tier.price), inclusive=inclusive) for tier in value.tiers)
    return make_rate(plain(value.base), per, cliffs)


def _cliff(start: int, usd: Decimal, *, inclusive: bool) -> Cliff:
    if inclusive and start % 1000 == _INCLUSIVE_TAIL:
        return Cliff(start + 1, usd, inclusive=True)
    return Cliff(start, usd)
