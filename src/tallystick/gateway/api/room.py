"""Room: the ASGI application of the interface under /tally/v1: it routes, checks, asks the ledger off the event loop,
and turns whatever is wrong into a status and a sentence."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from tallystick.errors import InputError, TallyError
from tallystick.gateway.api.desk import Asked, Desk
from tallystick.gateway.api.http import (
    JSON,
    Gone,
    Problem,
    Receive,
    Room,
    Scope,
    Send,
    headers_of,
    inflated,
    media_type,
    path_below,
    read_body,
    send_json,
    send_problem,
)
from tallystick.gateway.api.openapi import PREFIX, document
from tallystick.gateway.api.routes import MOST_BODY, Route, find, read_query

AT_ONCE: Final = 4
"""So many questions are put to the ledger at a time; the others wait, so that calls keep most of the threads."""

_MOST_FIELDS: Final = 64


class Api:
    """The interface. `live` serves the stream of events under /live."""

    def __init__(self, desk: Desk, live: Room | None = None) -> None:
        self._desk = desk
        self._live = live
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        head = scope["method"] == "HEAD"
        method = "GET" if head else scope["method"]
        path = path_below(scope, PREFIX)
        try:
            if path.rstrip("/") == "/live" and self._live is not None and method == "GET" and not head:
                await self._live(scope, receive, send)
                return
            if path in ("/openapi.json", "/live"):
                _only_get(method)
                await send_json(send, 200, document(), head=head)
                return
            route, values = find(method, path)
            status, value = await self._answer(route, values, scope, receive)
        except Gone:
            return
        except TallyError as error:
            await send_problem(send, error, head=head)
            return
        await send_json(send, status, value, head=head)

    async def _answer(
        self, route: Route, values: dict[str, str], scope: Scope, receive: Receive
    ) -> tuple[int, dict[str, Any]]:
        query = read_query(route, _pairs(scope["query_string"]))
        body = None
        if route.method != "GET":
            headers = headers_of(scope)
            if media_type(headers) != JSON:
                raise Problem(
                    415,
                    "A change is taken as JSON only.",
                    money="Nothing was changed.",
                    todo="Send the header content-type: application/json.",
                )
            data = await read_body(receive, MOST_BODY)
            data = inflated(data, headers.get("content-encoding", "").strip().lower(), MOST_BODY)
            body = None if route.body is None else _decoded(data, route.body)
        asked = Asked(values, query, body)
        async with self._turns:
            return await asyncio.to_thread(_told, route, self._desk, asked)


def _told(route: Route, desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    try:
        return route.answer(desk, asked)
    except (RecursionError, OverflowError):
        raise InputError("The question holds something too deep or too large to be worked out.") from None


def _decoded(data: bytes, kind: type) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = str(error).rstrip(".")[:300]
        raise Problem(400, f"The body cannot be read: {said}.", money="Nothing was changed.") from None


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Problem(400, f"A question has at most {_MOST_FIELDS} values.") from None


def _only_get(method: str) -> None:
    if method != "GET":
        raise Problem(405, "This can only be read.", todo="Use GET.", allow="GET")
