"""LiteLLM's JSON: today's rates as floats, without dates. A second opinion, and the only source for many rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.catalog.sources.row import Log, Row, make_rate, plain
from tallystick.core.models import PROVIDERS, parse_model, provider_id
from tallystick.core.rates import Cliff, Rate, RateCard, Variant, Window
from tallystick.errors import CatalogError

_MILLION: Final = 1_000_000
_HOUR: Final = 3_600_000
"""Milliseconds; the fields are per second, so a rate per hour is 3,600 times as much."""
_KINDS: Final = {
    "input_cost_per_token": ("input", _MILLION), "output_cost_per_token": ("output", _MILLION),
    "cache_read_input_token_cost": ("cache_read", _MILLION),
    "cache_creation_input_token_cost": ("cache_write", _MILLION),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h", _MILLION),
    "input_cost_per_audio_token": ("audio_input", _MILLION),
    "output_cost_per_audio_token": ("audio_output", _MILLION),
    "cache_read_input_audio_token_cost": ("audio_cache_read", _MILLION),
    "input_cost_per_image_token": ("image_input", _MILLION),
    "output_cost_per_image_token": ("image_output", _MILLION),
    "cache_read_input_image_token_cost": ("image_cache_read", _MILLION),
    "input_cost_per_video_token": ("video_input", _MILLION), "output_cost_per_video_token": ("video_output", _MILLION),
    "output_cost_per_reasoning_token": ("reasoning", _MILLION), "citation_cost_per_token": ("citation", _MILLION),
    "input_cost_per_character": ("characters_input", _MILLION),
    "output_cost_per_character": ("characters_output", _MILLION),
    "input_cost_per_second": ("milliseconds_input", _HOUR), "output_cost_per_second": ("milliseconds_output", _HOUR),
    "output_cost_per_image": ("images", 1), "input_cost_per_query": ("searches", 1000),
    "input_cost_per_request": ("requests", 1000), "ocr_cost_per_page": ("pages", 1000),
    "annotation_cost_per_page": ("fee:annotated_pages", 1000),
}  # fmt: skip
_TIERS: Final[dict[str, tuple[str, str, str]]] = {
    "batches": ("batch", "processing", "batch"), "flex": ("flex", "service_tier", "flex"),
    "priority": ("priority", "service_tier", "priority"), "ultrafast": ("ultrafast", "service_tier", "ultrafast"),
}  # fmt: skip
_FIELD: Final = re.compile(
    rf"(?P<base>{'|'.join(sorted(_KINDS, key=len, reverse=True))})"
    rf"(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<tier>{'|'.join(_TIERS)}))?"
)
_ECHOES: Final = {
    "reasoning": "output", "citation": "output", "image_input": "input", "video_input": "input",
    "image_cache_read": "cache_read", "video_cache_read": "cache_read", "audio_input": "input",
    "audio_output": "output",
}  # fmt: skip
_PROVIDERS: Final = {
    "fireworks_ai": "other:fireworks", "fireworks_ai-embedding-models": "other:fireworks", "voyage": "other:voyageai",
    "moonshot": "other:moonshotai", "meta_llama": "other:meta", "bigmodel": "other:zhipuai", "cohere_chat": "cohere",
    "codestral": "mistral", "text-completion-codestral": "mistral", "text-completion-openai": "openai",
    "azure_text": "azure",
}  # fmt: skip
_SIZED: Final = re.compile(r"(?:\d+-x-\d+|max-x-max|high|medium|low|standard|hd)/|[^/]+/(?:[a-z-]+/)?\d+-x-\d+")
"""Keys that carry an image's size or quality in front of the model: there is no kind or context for these."""

_IMAGE_MODES: Final = frozenset({"image_generation", "image_edit"})
_ISO: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_LONG: Final = 120
"""A longer address is a query; it would fill the catalogue and help nobody."""

_DIGITS: Final = Context(prec=12)
"""Twelve digits hold every published price; what lies behind them is the noise of a float."""


def read(path: Path, version: str, retrieved_at: str, log: Log) -> list[Row]:
    """The rows of LiteLLM's model price file. Raises CatalogError when it is not that file."""
    try:
        data = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except (OSError, msgspec.DecodeError) as error:
        raise CatalogError(f"LiteLLM's price file cannot be read: {error}.") from error
    rows: dict[tuple[str, str], Row] = {}
    for key, entry in data.items():
        place = _place(key, entry, log)
        if place is None:
            continue
        row = _row(place, key, entry, (f"litellm {version}", retrieved_at), log)
        held = rows.setdefault(row.key, row)
        if held is not row and _better(row, held):
            rows[row.key] = row
    return list(rows.values())


def _better(new: Row, old: Row) -> bool:
    """Of two keys for one model, the one that states more kinds."""
    return sum(len(card.rates) for card in new.cards) > sum(len(card.rates) for card in old.cards)


def _place(key: str, entry: Mapping[str, Any], log: Log) -> tuple[str, str] | None:
    source = entry.get("litellm_provider")
    if not isinstance(source, str) or " " in source:
        return None
    name = key
    heads = {source, source.split("-")[0], source.split("_")[0], source.replace("_", "-")}
    head, slash, rest = key.partition("/")
    if slash and head in heads:
        name = rest
    if _SIZED.match(key) or _SIZED.match(name):
        log.note("litellm: key with an image size or quality", key)
        return None
    provider = _provider(source)
    if provider == "aws":
        if "/" in name:
            log.note("litellm: key with a region in its path", key)
            return None
        ref = parse_model(name, "aws")
        return provider, f"{ref.geo}.{ref.id}" if ref.geo else ref.id
    return provider, name.lower()


def _provider(source: str) -> str:
    if source in _PROVIDERS:
        return _PROVIDERS[source]
    known = provider_id("vertex" if source.startswith("vertex_ai") else source)
    return known if known in PROVIDERS else f"other:{known.removeprefix('other:').replace('_', '-')}"


def _row(place: tuple[str, str], key: str, entry: Mapping[str, Any], origin: tuple[str, str], log: Log) -> Row:
    provider, name = place
    release, retrieved_at = origin
    row = Row(provider, name, mode=entry.get("mode"))
    row.context_window = _whole(entry.get("max_input_tokens"))
    row.max_output = _whole(entry.get("max_output_tokens"))
    ends = entry.get("deprecation_date")
    row.retires = ends if isinstance(ends, str) and _ISO.fullmatch(ends) else None
    row.uplifts = _uplifts(entry)
    groups = _grouped(entry, provider, log)
    base = groups.pop("", {})
    _tiered(entry, base)
    fees, fee_variants = _search_fees(entry, provider)
    _without_echoes(base, key, log)
    base = {**base, **fees}
    if not base:
        log.note("litellm: no rates, unknown", key)
        return row
    variants = [Variant(_TIERS[tier][0], rates, (_TIERS[tier][1:],)) for tier, rates in sorted(groups.items())]
    url = entry.get("source")
    source = release + (f", {url}" if isinstance(url, str) and len(url) < _LONG and " " not in url else "")
    row.cards.append(
        RateCard(
            provider,
            name,
            base,
            source=source,
            retrieved_at=retrieved_at,
            variants=(*_hours(entry, base), *fee_variants, *variants),
        )
    )
    return row


def _without_echoes(base: dict[str, Rate], key: str, log: Log) -> None:
    """Drops rates that only repeat another kind's. Reasoning and images fall back to it anyway, with its steps and
    tiers; audio at the text rate is a known way to a wrong bill."""
    for kind, other in _ECHOES.items():
        if kind in base and other in base and base[kind].usd == base[other].usd:
            del base[kind]
            if kind.startswith("audio"):
                log.note("litellm: audio at the text rate, dropped", f"{key} {kind}")


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _uplifts(entry: Mapping[str, Any]) -> dict[str, Decimal]:
    special = entry.get("provider_specific_entry") or {}
    stated = {
        "eu": entry.get("regional_processing_uplift_multiplier_eu"),
        "us": entry.get("regional_processing_uplift_multiplier_us") or special.get("us"),
        "endpoint": entry.get("regional_endpoint_uplift_multiplier"),
    }
    return {name: Decimal(repr(value)) for name, value in stated.items() if isinstance(value, int | float)}


def _grouped(entry: Mapping[str, Any], provider: str, log: Log) -> dict[str, dict[str, Rate]]:
    """Rates by tier (empty: standard), from fields like `input_cost_per_token_above_200k_tokens_batches`."""
    bases: dict[tuple[str, str], Rate] = {}
    steps: dict[tuple[str, str], list[Cliff]] = {}
    for name, value in entry.items():
        found = _FIELD.fullmatch(name)
        if found is None or not isinstance(value, int | float) or not value:
            if "cost" in name and isinstance(value, int | float) and value and found is None:
                log.note("litellm: field without a kind", name)
            continue
        kind, per = _KINDS[found["base"]]
        if not _means(kind, entry):
            continue
        place, usd = (found["tier"] or "", kind), _usd(value, per)
        if found["above"]:
            above = int(found["above"]) * 1000
            step = Cliff(above, usd, inclusive=True) if provider == "x-ai" else Cliff(above, usd)
            steps.setdefault(place, []).append(step)
        else:
            bases[place] = make_rate(usd, per)
    groups: dict[str, dict[str, Rate]] = {}
    for (tier, kind), rate in sorted(bases.items()):
        cliffs = sorted(steps.get((tier, kind), ()), key=lambda cliff: cliff.above)
        groups.setdefault(tier, {})[kind] = make_rate(rate.usd, rate.per, cliffs)
    return groups


def _means(kind: str, entry: Mapping[str, Any]) -> bool:
    """Whether a field that LiteLLM uses in several ways means the kind in this entry."""
    mode = entry.get("mode")
    if kind == "images":
        return mode in _IMAGE_MODES
    if kind == "milliseconds_input":
        return not entry.get("input_cost_per_token")  # Beside token rates it is only an estimate of them.
    if kind == "milliseconds_output":
        return mode in ("audio_speech", "video_generation") and not entry.get("input_cost_per_token")
    return not (kind == "video_output" and mode == "realtime")


def _usd(value: float, per: int) -> Decimal:
    units = per // 1000 if per == _HOUR else per
    return plain(_DIGITS.multiply(_DIGITS.create_decimal(repr(value)), Decimal(units)))


def _tiered(entry: Mapping[str, Any], base: dict[str, Rate]) -> None:
    """Adds rates given as `tiered_pricing`: a list of token ranges, each with its own rates for the whole request."""
    tiers = [tier for tier in entry.get("tiered_pricing") or () if isinstance(tier.get("range"), list)]
    tiers.sort(key=lambda tier: tier["range"][0])
    if not tiers or tiers[0]["range"][0] != 0:
        return
    for field, value in tiers[0].items():
        found = _KINDS.get(field)
        if found is None or not value:
            continue
        cliffs = [Cliff(int(tier["range"][0]), _usd(tier[field], found[1])) for tier in tiers[1:] if tier.get(field)]
        if len(cliffs) == len(tiers) - 1:
            base.setdefault(found[0], make_rate(_usd(value, found[1]), found[1], cliffs))


def _search_fees(entry: Mapping[str, Any], provider: str) -> tuple[dict[str, Rate], list[Variant]]:
    """Fees per search: one fee where all sizes cost the same, otherwise one per size and the highest where the size is
    not stated. At Perplexity the same field is the fee of a request."""
    given = entry.get("search_context_cost_per_query")
    if not isinstance(given, Mapping) or provider == "aws":  # Bedrock has no search of its own to charge for.
        return {}, []
    sizes = {
        name: make_rate(_usd(given[f"search_context_size_{name}"], 1000), 1000)
        for name in ("low", "medium", "high")
        if given.get(f"search_context_size_{name}")
    }
    if not sizes:
        return {}, []
    kind = "requests" if provider == "perplexity" else "fee:web_search"
    highest = max(sizes.values(), key=lambda rate: rate.usd)
    if all(rate == highest for rate in sizes.values()):
        return {kind: highest}, []
    return {kind: highest}, [
        Variant(f"search {name}", {kind: rate}, (("search_context_size", name),)) for name, rate in sizes.items()
    ]


def _hours(entry: Mapping[str, Any], base: Mapping[str, Rate]) -> list[Variant]:
    given = entry.get("off_peak_pricing")
    if not isinstance(given, Mapping):
        return []
    rates = {
        _KINDS[field][0]: make_rate(_usd(value, _KINDS[field][1]), _KINDS[field][1])
        for field, value in given.items()
        if field in _KINDS and value and _KINDS[field][0] in base
    }
    windows = []
    for window in given.get("windows", ()):
        hours = window["hours_utc"]
        days = tuple(window.get("weekdays", range(1, 8)))
        for span in [hours] if isinstance(hours, str) else hours:
            start, end = (int(time[:2]) * 60 + int(time[3:5]) for time in span.split("-"))
            windows.append(Window(start, end, days))
    return [Variant("off-peak", rates, windows=tuple(windows))] if rates and windows else []
