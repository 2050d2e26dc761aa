"""Serving: one request after the other gets its answer, and what was served is written down."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, Final

import msgspec

from tallystick.simulator.answer import Answer, Script
from tallystick.simulator.chooser import Chooser
from tallystick.simulator.delivery import Calls, Delivery, Served
from tallystick.simulator.failures import failing, failure
from tallystick.simulator.formats import WRITERS
from tallystick.simulator.frames import Prepared, prepare
from tallystick.simulator.free import free_answer
from tallystick.simulator.http import Connection
from tallystick.simulator.plan import Plan, plan
from tallystick.simulator.request import Request

_REQUEST_ID: Final = {"anthropic": "request-id", "bedrock": "x-amzn-requestid"}
_MEMORY: Final = 512


class Serving:
    """Answers requests. Belongs to the server's thread."""

    def __init__(self, script: Script, calls: Calls, *, typed: bool, series: str) -> None:
        self.chooser = Chooser(script)
        self.faults: list[BaseException] = []
        self._delivery = Delivery(calls)
        self._typed = typed
        self._series = series
        self._number = 0
        self._known: OrderedDict[tuple[object, ...], tuple[Plan, Prepared]] = OrderedDict()
        self._made: OrderedDict[tuple[object, ...], Prepared] = OrderedDict()
        self._background: dict[str, tuple[Plan, int]] = {}

    async def __call__(self, request: Request, connection: Connection) -> None:
        """Answers one request."""
        self._number += 1
        identity = f"{self._series}{self._number:016d}"
        found = self._apart(request, identity)
        if found is not None:
            await self._delivery.whole(found, connection, Answer())
            return
        answer, fails = self.chooser.answer(request)
        if answer.first_byte_ms:
            await asyncio.sleep(answer.first_byte_ms / 1000)
        if fails or not (request.readable or request.headers.get("content-type", "").startswith("multipart/")):
            found = self._failure(request, answer.status if fails else 400, identity, answer)
            await self._delivery.whole(found, connection, Answer())
            return
        served = self._answered(request, answer, identity)
        if served.prepared.whole:
            await self._delivery.whole(served, connection, answer)
        else:
            await self._delivery.stream(served, connection, answer)

    def _apart(self, request: Request, identity: str) -> Served | None:
        """What stands in no script: free answers, a background response that is fetched, a path that is nobody's."""
        way = request.way
        if way is None:
            return self._failure(request, 404, identity, Answer(message=f"Unknown path {request.path}."))
        if way.api == "openai.responses.get":
            return self._fetched(request, identity)
        body = free_answer(request)
        if body is None:
            return None
        return self._served(request, None, _one(body), 200, identity, Answer())

    def _fetched(self, request: Request, identity: str) -> Served:
        wanted = request.model.removeprefix("resp_")
        kept = self._background.get(wanted)
        if kept is None:
            return self._failure(request, 404, identity, Answer(message=f"There is no response {request.model}."))
        plan, polls = kept
        form = "in_progress" if polls else "fetched"
        self._background[wanted] = plan, max(0, polls - 1)
        plan = msgspec.structs.replace(plan, form=form, stream=False)
        served = self._served(request, plan, self._prepared(plan), 200, wanted, plan.answer)
        return _unfinished(served, plan) if polls else served

    def _answered(self, request: Request, answer: Answer, identity: str) -> Served:
        key = (answer.key, request.path, request.query, request.body)
        known = self._known.get(key)
        if known is None:
            decided = plan(request, answer)
            known = decided, self._prepared(decided)
            _remember(self._known, key, known)
        decided, prepared = known
        if answer.ids == "same":
            identity = "0" * len(identity)
        if decided.form != "background":
            return self._served(request, decided, prepared, 200, identity, answer)
        self._background[identity] = decided, answer.polls
        served = self._served(request, decided, prepared, 200, identity, answer)
        return served if decided.stream else _unfinished(served, decided)

    def _prepared(self, decided: Plan) -> Prepared:
        prepared = self._made.get(decided.identity)
        if prepared is None:
            written = failing(WRITERS[decided.api](decided), decided)
            prepared = prepare(written, decided, typed=self._typed)
            _remember(self._made, decided.identity, prepared)
        return prepared

    def _failure(self, request: Request, status: int, identity: str, answer: Answer) -> Served:
        provider = request.way.provider if request.way else "openai"
        headers, body = failure(provider, status, answer.message)
        served = self._served(request, None, _one(body), status, identity, answer)
        return msgspec.structs.replace(served, headers=headers | served.headers)

    def _served(
        self, request: Request, plan: Plan | None, prepared: Prepared, status: int, identity: str, answer: Answer
    ) -> Served:
        provider = request.way.provider if request.way else "openai"
        headers = {"content-type": prepared.content_type, _REQUEST_ID.get(provider, "x-request-id"): f"req_{identity}"}
        headers |= dict(prepared.headers) | dict(answer.headers)
        stated = plan is not None and plan.id is not None
        whole = prepared.with_id(identity)
        return Served(request, plan, whole, status, headers, identity if stated else None, prepared.usage)


def _unfinished(served: Served, plan: Plan) -> Served:
    """A background response before it is complete: nothing is said yet, and nothing used."""
    return msgspec.structs.replace(served, usage=None, plan=msgspec.structs.replace(plan, text=""))


def _one(body: bytes) -> Prepared:
    """A body that is no generated answer."""
    return Prepared("application/json", (), True, body, (len(body),), b"", (), ("",), ())


def _remember(memory: OrderedDict[tuple[object, ...], Any], key: tuple[object, ...], value: object) -> None:
    memory[key] = value
    if len(memory) > _MEMORY:
        memory.popitem(last=False)
