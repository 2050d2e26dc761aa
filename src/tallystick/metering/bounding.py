"""Bounding: the most a call can cost before anybody has answered it: its input counted here, its answer as far as it
may go, at the worst rate that can apply."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.models import provider_id
from tallystick.core.pricing import Plan, plan_for
from tallystick.core.usage import INPUT_KINDS
from tallystick.errors import InputError, UnpricedError
from tallystick.metering.claims import Bound
from tallystick.wire.facts import RequestFacts

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog, Found

_SILENT: Final = ("embeddings", "rerank", "moderations", "count_tokens")
"""Endpoints that generate nothing."""

_MARKS: Final = re.compile(
    rb'"(image|input_image|audio|input_audio|video|file|input_file|document|inlineData|inline_data|system|'
    rb"(?:previous_response_id|conversation|cachedContent|cached_content|cache_control|cachePoint|1h|developer|"
    rb'instructions)(?=")|(?:response_?)?[mM]odalities)'
)
_MEDIA: Final = frozenset(
    b"image input_image audio input_audio video file input_file document inlineData inline_data".split()
)
"""What a body that holds pictures, sound or documents cannot be without."""

_ELSEWHERE: Final = frozenset((b"previous_response_id", b"conversation", b"cachedContent", b"cached_content"))
_CACHED: Final = frozenset((b"cache_control", b"cachePoint"))
_SYSTEM: Final = frozenset((b"system", b"developer", b"instructions"))
_SHAPED: Final = frozenset((b"modalities", b"responseModalities", b"response_modalities"))
_BY_CALL: Final = ("requests", "images", "milliseconds_input", "characters_input", "pages", "searches")
MAX_KNOWN: Final = 1000
"""So many combinations of rates and kinds of requests are remembered."""

_USES: Final = "max_uses"
_LETTERS: Final = re.compile(r"[^a-z]")
_LETTER_COST: Final = 64
"""Tokens that a chat format adds at most to a prompt, beside its messages."""


class Priced(msgspec.Struct, frozen=True, gc=False):
    """Rates of a bound: exact picodollars per input and per output token as (numerator, denominator), and whole
    picodollars per call."""

    input: tuple[int, int]
    output: tuple[int, int]
    call: int

    def bound(self, tokens: int, output: int) -> Bound:
        """The bound of a call with so much input and answer."""
        pico = -(-tokens * self.input[0] // self.input[1]) + self.call
        return Bound(pico=pico, pico_per_output=-(-self.output[0] // self.output[1]), input=tokens, output=output)


def silent(facts: RequestFacts) -> bool:
    """Whether the endpoint generates no answer in tokens."""
    return facts.api.endswith(_SILENT)


class Traits(msgspec.Struct, frozen=True, gc=False):
    """What a body speaks of, found without decoding it: more than there is now and then, never less. `media` are
    pictures, sound and documents, of which bytes say nothing; `remembered` is a prompt that goes on from something the
    provider keeps, so that its size is not to be seen here; `system` a text of that kind."""

    media: bool
    remembered: bool
    audio: bool
    video: bool
    cached: bool
    hour: bool
    shaped: bool
    system: bool


def traits_of(facts: RequestFacts) -> Traits:
    """What a request's body speaks of: all of it found in one pass."""
    body = facts.body
    marks = _MARKS.findall(body)
    if not marks:
        return _PLAIN if "audio" not in facts.api else _SPOKEN
    found = frozenset(marks)
    media = not found.isdisjoint(_MEDIA) or facts.images > 0
    return Traits(
        media=media,
        remembered=not found.isdisjoint(_ELSEWHERE),
        audio="audio" in facts.api or (media and b"audio" in body),
        video=media and b"video" in body,
        cached=not found.isdisjoint(_CACHED),
        hour=b"1h" in found,
        shaped=not found.isdisjoint(_SHAPED),
        system=not found.isdisjoint(_SYSTEM),
    )


_PLAIN: Final = Traits(
    media=False, remembered=False, audio=False, video=False, cached=False, hour=False, shaped=False, system=False
)
_SPOKEN: Final = msgspec.structs.replace(_PLAIN, audio=True)


def quick_input(facts: RequestFacts) -> int:
    """An upper bound of the prompt's tokens for nothing: a token of byte-level BPE has at least a byte, and what a chat
    format adds is less than the JSON around the texts."""
    return facts.body_bytes + _LETTER_COST


def counted_input(facts: RequestFacts) -> int:
    """The prompt's tokens, counted: exact where the tokenizer is known, else the upper end of the estimate; pictures,
    sound and documents by their upper bounds."""
    from tallystick.tokens.chat import count_messages

    payload = facts.payload()
    if not payload:
        return quick_input(facts)
    messages = next((payload[key] for key in _PROMPTS if payload.get(key) is not None), None)
    system = [payload[key] for key in _SYSTEMS if payload.get(key) is not None]
    tools = payload.get("tools") or (payload.get("toolConfig") or {}).get("tools") or payload.get("functions")
    counted = count_messages(messages, facts.model or "", tools=tools, system=system or None)
    more = payload.get("response_format") or payload.get("text") or payload.get("documents")
    extra = count_messages(msgspec.json.encode(more).decode(), facts.model or "").high if more else 0
    high = counted.high + extra
    # A token has at least a byte, whatever an estimate says of rare texts.
    return high if traits_of(facts).media else min(high, quick_input(facts))


_PROMPTS: Final = ("messages", "input", "contents", "prompt", "query", "texts", "inputs")
_SYSTEMS: Final = ("system", "instructions", "systemInstruction", "system_instruction")


def rates_of(
    facts: RequestFacts,
    found: Found,
    tokens: int,
    at: datetime,
    context: Mapping[str, str],
    *,
    traits: Traits | None = None,
) -> Priced:
    """The worst rates that can apply to a prompt of up to so many tokens, with the tier, region and the like that the
    request asks for. Raises UnpricedError where the card has no rate for what the call certainly uses."""
    traits = traits_of(facts) if traits is None else traits
    asked: dict[str, str] = {**found.context, **facts.context, **context}
    if facts.tier:
        asked["service_tier"] = facts.tier
    plans = tuple([plan_for(found.card, size, at, asked) for size in _sizes(found, tokens)])
    worst = _worst_of(plans, facts, traits)
    read, write = worst.read, worst.write
    call = _most([_per_call(plan, facts) for plan in plans]) if worst.by_call or _asks_for_tools(facts) else None
    if read is None and call is None:
        from tallystick.errors import MissingRateError

        raise MissingRateError(
            f"No rate of {facts.model!r} covers its input.",
            money="What the call may cost is unknown, not zero.",
            todo=f"Set it: tally rates set {facts.model} --input USD --output USD (dollars per million tokens).",
        )
    if write is None and read is not None and not silent(facts):
        from tallystick.errors import MissingRateError

        raise MissingRateError(
            f"No rate of {facts.model!r} covers its answer.",
            money="What the call may cost is unknown, not zero.",
            todo=f"Set it: tally rates set {facts.model} --input USD --output USD (dollars per million tokens).",
        )
    whole = 0 if call is None else -(-call[0] // call[1])
    return Priced(read or (0, 1), write or (0, 1), whole)


class _Worst(msgspec.Struct, frozen=True):
    """The worst rates per token of some plans, and whether they price anything else but tools."""

    plans: tuple[Plan, ...]
    read: tuple[int, int] | None
    write: tuple[int, int] | None
    by_call: bool


_KNOWN: Final[dict[tuple[object, ...], _Worst]] = {}
"""By what decides them; the plans are kept there, so that no other one takes their place in memory."""


def _worst_of(plans: tuple[Plan, ...], facts: RequestFacts, traits: Traits) -> _Worst:
    key = (facts.api, traits, *map(id, plans))
    worst = _KNOWN.get(key)
    if worst is None:
        worst = _Worst(
            plans,
            _most([_worst(plan, _input_kinds(facts, plan, traits)) for plan in plans]),
            _most([_worst(plan, _output_kinds(facts, traits)) for plan in plans]),
            any(kind in _BY_CALL for plan in plans for kind in plan.kinds),
        )
        if not traits.shaped:
            # Else the request's own words decide, too.
            if len(_KNOWN) >= MAX_KNOWN:
                _KNOWN.clear()
            _KNOWN[key] = worst
    return worst


def find_card(facts: RequestFacts, catalog: Catalog, at: datetime) -> Found | UnpricedError:
    """The card of the model that the request names, or why there is none."""
    if facts.model is None:
        return UnpricedError("The request names no model.", money="What it may cost is unknown, not zero.")
    try:
        return catalog.find(facts.model, at=at, provider=provider_id(facts.provider))
    except UnpricedError as error:
        return error
    except InputError as error:
        return UnpricedError(str(error))


def _sizes(found: Found, tokens: int) -> Iterator[int]:
    # Not every card is dearer above a threshold, so each size the prompt may have is looked at.
    yield tokens
    for first in found.card.thresholds:
        if first <= tokens:
            yield first - 1


def _input_kinds(facts: RequestFacts, plan: Plan, traits: Traits) -> Iterator[str]:
    # Where writing to a cache is asked for block by block, it costs nothing unless it is asked for.
    by_mark = "cache_write_5m" in plan.kinds or "cache_write_1h" in plan.kinds
    for kind in INPUT_KINDS:
        if kind.endswith("cache_read"):
            continue
        if kind == "cache_write_1h" and not (traits.cached and traits.hour):
            continue
        if kind.startswith("cache_write") and by_mark and not traits.cached:
            continue
        if (kind == "audio_input" and not traits.audio) or (kind == "video_input" and not traits.video):
            continue
        if kind == "image_input" and not (traits.media or "image" in facts.api):
            continue
        yield kind


def _output_kinds(facts: RequestFacts, traits: Traits) -> Iterator[str]:
    yield from ("output", "reasoning", "citation")
    modes = ""
    if traits.shaped:
        wants = facts.payload()
        inner = wants.get("generationConfig")
        asked = inner.get("responseModalities") if isinstance(inner, dict) else None
        modes = str([wants.get("modalities"), asked]).lower()
    for kind in ("audio_output", "image_output", "video_output"):
        if kind.partition("_")[0] in modes or kind.partition("_")[0] in facts.api:
            yield kind


def _worst(plan: Plan, kinds: Iterator[str]) -> tuple[int, int] | None:
    found = [plan.kinds[kind] for kind in kinds if kind in plan.kinds]
    return _most([(priced.numerator, priced.denominator) for priced in found])


def _most(rates: list[tuple[int, int] | None] | list[tuple[int, int]]) -> tuple[int, int] | None:
    worst: tuple[int, int] | None = None
    for rate in rates:
        if rate is not None and (worst is None or rate[0] * worst[1] > worst[0] * rate[1]):
            worst = rate
    return worst


def _per_call(plan: Plan, facts: RequestFacts) -> tuple[int, int] | None:
    """What does not go by tokens: requests, pictures made, sound, characters, and one use of each tool with a fee
    unless the request allows more."""
    amounts = {
        "requests": 1,
        "images": facts.answers,
        "milliseconds_input": facts.body_bytes,
        "characters_input": facts.body_bytes,
        "pages": 1 + facts.body_bytes // 2000,
        "searches": 1,
    }
    for kind in plan.kinds:
        if kind.startswith("fee:"):
            amounts[kind] = _uses(kind.removeprefix("fee:"), facts)
    found = [(plan.kinds[kind], amount) for kind, amount in amounts.items() if kind in plan.kinds and amount]
    if not found:
        return None
    total = sum(
        math.ceil(_billed(priced.rate, amount) * priced.numerator / priced.denominator) for priced, amount in found
    )
    return total, 1


def _billed(rate: Any, amount: int) -> int:
    return int(-(-max(amount, rate.minimum) // rate.step) * rate.step)


def _asks_for_tools(facts: RequestFacts) -> bool:
    return bool(facts.tools) or b'"web_search_options"' in facts.body


def _uses(fee: str, facts: RequestFacts) -> int:
    """How often a tool with a fee may be used: 0 where it is not asked for."""
    wanted = _LETTERS.sub("", fee.lower())
    named = [name for name in facts.tools if wanted in _LETTERS.sub("", name.lower())]
    if not named and not (fee == "web_search" and b'"web_search_options"' in facts.body):
        named = ["google_search"] if wanted == "websearch" and b"oogle" in facts.body and _grounded(facts) else []
        if not named:
            return 0
    tools = facts.payload().get("tools")
    limits = [tool.get(_USES) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return max([1, *(limit for limit in limits if type(limit) is int)])


def _grounded(facts: RequestFacts) -> bool:
    return any(name.lower().replace("_", "").startswith("googlesearch") for name in facts.tools)
