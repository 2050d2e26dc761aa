"""Format: one API's payloads as types, and the functions that read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from tallystick.wire.context import tiers
from tallystick.wire.reading import Reading

U = TypeVar("U")


class Format(msgspec.Struct, frozen=True):
    """How to read one API: `usage_type` and `body_type` are what msgspec decodes its usage object and its whole body
    to, `of_usage` and `of_body` read the decoded value. `providers` bill through it; `paths` say where in a body the
    usage object is found (an empty path: the body itself)."""

    providers: tuple[str, ...]
    usage_type: Any
    body_type: Any
    of_usage: Callable[[Any], Reading]
    of_body: Callable[[Any], Reading]
    paths: tuple[tuple[str, ...], ...] = (("usage",),)


class Body(msgspec.Struct, Generic[U], frozen=True, gc=False):
    """The parts of an OpenAI-like response body that decide its cost."""

    id: str | None = None
    model: str | None = None
    usage: U | None = None
    service_tier: str | None = None


def body_reader(of_usage: Callable[[Any], Reading]) -> Callable[[Body[Any]], Reading]:
    """A reader of whole bodies made from a reader of their usage objects."""

    def read(body: Body[Any]) -> Reading:
        context = tiers(body.service_tier)
        if body.usage is None:
            return Reading(None, body.model, context, None, None, body.id)
        stated = of_usage(body.usage)
        if stated.context:
            context = {**stated.context, **context}
        return Reading(stated.usage, body.model, context, stated.reported, stated.upstream, body.id, stated.fault)

    return read


def like_chat(provider: str, usage_type: Any, of_usage: Callable[[Any], Reading]) -> Format:
    """The format of one provider's OpenAI-like chat API."""
    return Format((provider,), usage_type, Body[usage_type], of_usage, body_reader(of_usage))
