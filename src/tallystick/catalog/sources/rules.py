"""Rules for whole groups of rows: who made a model, which kind falls back to which, what a `:free` id costs."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from tallystick.catalog.sources.row import Row
from tallystick.core.rates import Rate, RateCard

_OUTSIDE: Final = frozenset({"anthropic", "aws"})
"""Billers whose cached tokens are not part of the input count, so that they have no input rate to fall back to."""

_SAME_FOR_ALL_MEDIA: Final = frozenset({"google", "vertex"})
"""Billers that count audio as ordinary tokens unless a row states a rate of its own."""

_FREE: Final = ":free"
_AREAS: Final = frozenset(
    {"global", "regional", "us-gov", "us", "eu", "apac", "au", "jp", "ca", "sa", "me", "af", "in"}
)
"""What stands in front of a Bedrock id: an inference profile's area."""


def maker_of(name: str, provider: str, table: Mapping[str, Any]) -> str | None:
    """Who made a model: the `maker/` or `maker.` in front of its name, what the name begins with, the biller where it
    sells its own models, or None."""
    return _by_prefix(name, provider, table) or (provider if provider in table["own"] else None)


def _by_prefix(name: str, provider: str, table: Mapping[str, Any]) -> str | None:
    text = name.removeprefix("~")
    head, slash, rest = text.rpartition("/")
    if slash:
        head = head.split("/")[-1]
        return str(table["spelling"].get(head, head)) if provider != "other:fireworks" else _by_name(rest, table)
    parts = text.split(".")
    if parts[0] in _AREAS:
        parts = parts[1:]
    if provider == "aws" and len(parts) > 1 and parts[0].isalpha():
        return str(table["spelling"].get(parts[0], parts[0]))
    return _by_name(text, table)


def _by_name(name: str, table: Mapping[str, Any]) -> str | None:
    found = [prefix for prefix in table["makers"] if name.removeprefix("ft:").startswith(prefix)]
    return str(table["makers"][max(found, key=len)]) if found else None


def fallbacks_of(row: Row, card: RateCard) -> dict[str, str]:
    """Which kind takes which other kind's rate in this card, where it has none of its own. There is no other fallback.

    Audio at the text rate is a well-known way to a wrong bill, so audio falls back only where the biller is known to
    count it as ordinary tokens; generated images never do where the row prices image tokens.
    """
    kinds = set(card.rates)
    has_input, has_output = "input" in kinds, "output" in kinds
    found: dict[str, str] = {}
    if has_output:
        found |= {"reasoning": "output", "citation": "output"}
    if "cache_write" in kinds:
        found["cache_write_5m"] = "cache_write"
    elif "cache_write_5m" in kinds:
        found["cache_write"] = "cache_write_5m"
    inside = row.provider not in _OUTSIDE and (row.maker != "anthropic" or row.provider == "openrouter")
    if inside and has_input:
        found |= {"cache_read": "input", **({} if "cache_write" in found else {"cache_write": "input"})}
    if has_input:
        found |= {"image_input": "input", "video_input": "input"}
        if "cache_read" in kinds or inside:
            found |= {f"{medium}_cache_read": "cache_read" for medium in ("image", "video")}
    found |= _audio(row, kinds, inside=inside)
    if "image_input" in kinds and "image_output" not in kinds and has_output:
        found["image_output"] = "output"  # An image model whose one output rate is that of its image tokens.
    for medium in ("image", "video"):
        if f"{medium}_input" in kinds:  # Priced apart when new, so what it costs when cached is not known.
            found.pop(f"{medium}_cache_read", None)
    return {kind: other for kind, other in sorted(found.items()) if kind not in kinds}


def _audio(row: Row, kinds: set[str], *, inside: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    if row.provider in _SAME_FOR_ALL_MEDIA and row.maker == "google":
        found |= {"audio_input": "input"} if "input" in kinds else {}
        found |= {"audio_output": "output"} if "output" in kinds else {}
        found |= {"audio_cache_read": "cache_read"} if "audio_input" not in kinds and "input" in kinds else {}
    if inside and "audio_input" in kinds and "cache_read" not in kinds:
        found["audio_cache_read"] = "audio_input"  # Nothing is discounted here: cached audio is plain audio.
    return found


def make_free(row: Row, source: str, retrieved_at: str) -> None:
    """Gives a row whose id ends in `:free` at OpenRouter its real zero; every other empty row stays unknown."""
    if row.provider == "openrouter" and row.id.endswith(_FREE) and not row.cards:
        zero = Rate(Decimal(0))
        row.cards.append(
            RateCard(
                row.provider,
                row.id,
                {"input": zero, "output": zero},
                source=source,
                retrieved_at=retrieved_at,
                note="a :free id costs nothing",
            )
        )


def finish(row: Row) -> None:
    """Writes the fallbacks into the row's cards and puts everything in its final order."""
    row.cards = [
        msgspec.structs.replace(
            card,
            provider=row.provider,
            model=row.id,
            rates=dict(sorted(card.rates.items())),
            fallbacks=fallbacks_of(row, card),
        )
        for card in row.cards
    ]
    row.aliases.discard(row.id)
