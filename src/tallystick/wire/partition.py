"""partition(): the counts a provider states, cut into kinds that never overlap."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.core.usage import MAX_COUNT, Usage
from tallystick.errors import UsageError

Count = Annotated[int, msgspec.Meta(ge=0, lt=MAX_COUNT)]
"""A count as a payload may state it: a whole number from 0 to 2**53 - 1."""

Split = tuple[Usage | None, str | None]
"""A usage and what is wrong with it. The usage is None when its parts exceed their whole, for then nobody knows which
of the numbers is right; a fault beside a usage means that the numbers stand as stated but contradict a total."""

_LARGEST: Final = 15
_SMALLEST: Final = -30
_DIGITS: Final = 60


class CachedDetails(msgspec.Struct, frozen=True, gc=False):
    """Cached tokens by modality; the remainder is text."""

    audio_tokens: Count = 0
    image_tokens: Count = 0
    video_tokens: Count = 0


class InputDetails(msgspec.Struct, frozen=True, gc=False):
    """Parts of a prompt in OpenAI's words, all inside the prompt's count. Text is what remains, so a stated text count
    is not read."""

    cached_tokens: Count = 0
    cache_write_tokens: Count = 0
    audio_tokens: Count = 0
    image_tokens: Count = 0
    video_tokens: Count = 0
    cached_tokens_details: CachedDetails | None = None


class OutputDetails(msgspec.Struct, frozen=True, gc=False):
    """Parts of an answer in OpenAI's words, all inside the output's count. Rejected and accepted prediction tokens are
    billed as plain output, so they stay in it."""

    reasoning_tokens: Count = 0
    audio_tokens: Count = 0
    image_tokens: Count = 0
    video_tokens: Count = 0


NO_MEDIA: Final = CachedDetails()


def partition(
    prompt: int, output: int, total: int | None, inside: InputDetails | None, made: OutputDetails | None
) -> Split:
    """The usage where cached, written and media tokens are inside `prompt`, and reasoning and media inside `output`.

    `total`, where stated, must be prompt + output: if not, the parts are kept and the contradiction is the fault.
    """
    if inside is None:
        cached = written = 0
        plain = prompt
    else:
        if inside.audio_tokens or inside.image_tokens or inside.video_tokens or inside.cached_tokens_details:
            return _mixed(prompt, output, total, inside, made or OutputDetails())
        cached = inside.cached_tokens
        written = inside.cache_write_tokens
        plain = prompt - cached - written
    if made is None:
        reasoning = 0
    else:
        if made.audio_tokens or made.image_tokens or made.video_tokens:
            return _mixed(prompt, output, total, inside or InputDetails(), made)
        reasoning = made.reasoning_tokens
    if plain < 0:
        return None, f"{cached} cached and {written} cache-written tokens are more than the {prompt} of the prompt"
    if output < reasoning:
        return None, f"{reasoning} reasoning tokens are more than the {output} of the output"
    counts = {}
    if plain:
        counts["input"] = plain
    if cached:
        counts["cache_read"] = cached
    if written:
        counts["cache_write"] = written
    if output != reasoning:
        counts["output"] = output - reasoning
    if reasoning:
        counts["reasoning"] = reasoning
    if total is not None and total != prompt + output:
        return Usage.trusted(counts), _wrong_total(prompt, output, total)
    return Usage.trusted(counts), None


def _mixed(prompt: int, output: int, total: int | None, inside: InputDetails, made: OutputDetails) -> Split:
    """The same for calls with more than text."""
    media = CachedDetails(inside.audio_tokens, inside.image_tokens, inside.video_tokens)
    stored = inside.cached_tokens_details or NO_MEDIA
    counts: dict[str, int] = {}
    below = keep(counts, media_prompt(prompt, inside.cached_tokens, inside.cache_write_tokens, media, stored))
    if below:
        return None, leftover(below, prompt)
    reasoning = made.reasoning_tokens
    plain = output - reasoning - made.audio_tokens - made.image_tokens - made.video_tokens
    if plain < 0:
        return None, f"the parts of the output do not fit into its {output} tokens: output {plain} would remain"
    keep(
        counts,
        {
            "output": plain,
            "reasoning": reasoning,
            "audio_output": made.audio_tokens,
            "image_output": made.image_tokens,
            "video_output": made.video_tokens,
        },
    )
    wrong = total is not None and total != prompt + output
    return Usage.trusted(counts), _wrong_total(prompt, output, total) if wrong else None


def _wrong_total(prompt: int, output: int, total: int | None) -> str:
    return f"the stated total of {total} tokens is not {prompt} input + {output} output"


def keep(counts: dict[str, int], rows: Mapping[str, int]) -> list[str]:
    """Copies the positive rows to `counts`, in their order, and names the negative ones."""
    counts.update({kind: count for kind, count in rows.items() if count > 0})
    return [f"{kind} {count}" for kind, count in rows.items() if count < 0]


def media_prompt(prompt: int, cached: int, written: int, media: CachedDetails, stored: CachedDetails) -> dict[str, int]:
    """The kinds of a prompt that holds more than text, zeros and negative leftovers included.

    `media` counts what is inside `prompt` by modality, `stored` what is inside `cached`; the rest is text.
    """
    cached_text = cached - stored.audio_tokens - stored.image_tokens - stored.video_tokens
    text = prompt - cached_text - written - media.audio_tokens - media.image_tokens - media.video_tokens
    return {
        "input": text,
        "cache_read": cached_text,
        "cache_write": written,
        "audio_input": media.audio_tokens - stored.audio_tokens,
        "audio_cache_read": stored.audio_tokens,
        "image_input": media.image_tokens - stored.image_tokens,
        "image_cache_read": stored.image_tokens,
        "video_input": media.video_tokens - stored.video_tokens,
        "video_cache_read": stored.video_tokens,
    }


def leftover(below: list[str], prompt: int) -> str:
    """The fault of a prompt whose parts leave less than nothing."""
    return f"the parts of the prompt do not fit into its {prompt} tokens: {', '.join(below)} would remain"


def with_counts(usage: Usage | None, more: Mapping[str, int]) -> Usage | None:
    """The usage with further kinds set; None stays None, for a fee beside unknown tokens is no usage."""
    if usage is None or not more:
        return usage
    return Usage({**usage, **more})


def milliseconds(seconds: Decimal) -> int:
    """Seconds as whole milliseconds, half-even. Raises UsageError for what cannot be a duration."""
    return _scaled(seconds, 3, "a duration in seconds")


def dollars(amount: Decimal | None) -> Money | None:
    """A stated amount of US dollars, to 1e-12. Raises UsageError for a negative, endless or absurd one."""
    return None if amount is None else Money(_scaled(amount, 12, "a cost in US dollars"))


def _scaled(value: Decimal, places: int, what: str) -> int:
    """`value` times a power of ten as a whole number. The limits come first: 1e999999 has a million digits as an
    integer, and a payload must not be able to ask for that."""
    if not value.is_finite() or value < 0 or value.adjusted() > _LARGEST or len(value.as_tuple().digits) > _DIGITS:
        raise UsageError(f"{str(value)[:80]} is not {what}.", todo="Expected a plain number, zero or more.")
    if value.adjusted() < _SMALLEST:
        return 0
    numerator, denominator = value.as_integer_ratio()
    return divide_half_even(numerator * 10**places, denominator)
