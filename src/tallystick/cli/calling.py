"""Calling: one request to a provider with nothing but the standard library, metered like any client's."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from tallystick.capture.process import beside_ledger
from tallystick.defaults import catalog
from tallystick.errors import TallyError
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.intents import SUFFIX, Intents
from tallystick.ledger.ledger import Ledger
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.leave import Denied
from tallystick.metering.meter import Meter

TIMEOUT: Final = 120.0
"""Seconds without a byte before a connection is given up."""

_PIECE: Final = 65536


def free_meter(ledger: Ledger, place: Path | str | None = None) -> Meter:
    """A meter for calls that nobody bills: no budget concerns them. `place` is where the ledger is, so that other
    processes see its calls in flight."""
    beside = None if place is None else beside_ledger(place)
    intents = None if beside is None else Intents(beside.with_name(beside.name + SUFFIX), new_call_id)
    return Meter(ledger, catalog, intents=intents)


def shown_place(place: Path | str) -> str:
    """Where a ledger is, in words; the address of a database may hold a password."""
    return str(place) if isinstance(place, Path) else "the database in force"


class Shape(msgspec.Struct, frozen=True):
    """A request in a provider's own format: `path` below its base URL, and the body."""

    path: str
    body: dict[str, Any]

    @property
    def data(self) -> bytes:
        """The body as bytes."""
        return msgspec.json.encode(self.body)


def shape_of(provider: str, model: str, text: str, *, stream: bool = True, most: int | None = None) -> Shape:
    """The request for one text. `most` is the tokens of answer at most; Anthropic's format cannot do without one."""
    if provider == "anthropic":
        body = {"model": model, "max_tokens": most or 1024, "messages": [{"role": "user", "content": text}]}
        return Shape("/v1/messages", {**body, "stream": stream})
    if provider == "google":
        config = {} if most is None else {"generationConfig": {"maxOutputTokens": most}}
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        place = f"/v1beta/models/{quote(model, safe='')}:{verb}"
        return Shape(place, {"contents": [{"role": "user", "parts": [{"text": text}]}], **config})
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    return Shape("/chat/completions", body if most is None else {**body, "max_completion_tokens": most})


def credentials(provider: str, key: str) -> dict[str, str]:
    """The headers that a provider's own client sends its key in."""
    if provider == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"x-goog-api-key": key} if provider == "google" else {"authorization": f"Bearer {key}"}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a redirect would carry the key to somebody else."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None


class Exchange:
    """One request and its answer. `call` is its meter; `sent` the body that went out, `status` and `headers` of the
    answer are there after `send`. `provider` is who bills; None: the host says. A connection that fails raises
    TallyError, after the call is settled."""

    def __init__(
        self, meter: Meter, url: str, headers: Mapping[str, str], body: bytes, *, provider: str | None
    ) -> None:
        self.url = url
        self.asked = body
        self.sent = body
        self.status = 0
        self.headers: dict[str, str] = {}
        self._request_headers = {"content-type": "application/json", **headers}
        call = meter.call("POST", url, {name.lower(): text for name, text in self._request_headers.items()}, body,
                          provider=provider)  # fmt: skip
        if call is None:
            raise TallyError("This request could not be metered.", money="It was not sent.", todo="Report this.")
        self.call: CallMeter = call
        self._answer: IO[bytes] | None = None

    def admitted(self) -> tuple[int, bytes] | None:
        """Asks for leave to send; where it is refused, the status and body that stand in for the answer."""
        leave = self.call.ask().result()
        if not isinstance(leave, Denied):
            self.sent = self.call.outgoing() or self.asked
            return None
        status, _, body = self.call.refusal(leave)
        return status, body

    def send(self, *, direct: bool) -> None:
        """Sends the request and waits for the answer's head. `direct` goes past any proxy."""
        handlers: list[urllib.request.BaseHandler] = [_Stay()]
        if direct:
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        request = urllib.request.Request(self.url, self.sent, self._request_headers, method="POST")  # noqa: S310
        try:
            answer = opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, http.client.HTTPException) as error:
            self.call.failed(error.reason if isinstance(getattr(error, "reason", None), Exception) else error)  # type: ignore[union-attr]
            self.settle()
            raise TallyError(
                f"{urlsplit(self.url).hostname} gave no answer: {getattr(error, 'reason', error)}.",
                todo="Check the network and the base URL.",
            ) from None
        self._answer = answer
        self.status = int(answer.status or 0)
        self.headers = {name.lower(): text for name, text in answer.headers.items()}
        self.call.answered(self.status, self.headers)

    def pieces(self) -> Iterator[tuple[bytes, bytes]]:
        """The bytes as they come in, each with what is handed over for them. Settles the call at its end; a connection
        that breaks raises TallyError behind the last piece."""
        answer = self._answer
        if answer is None:
            return
        try:
            while data := answer.read1(_PIECE):  # type: ignore[attr-defined]
                handed = self.call.feed(data)
                if self.call.ended:
                    self.settle()
                yield data, handed
                if self.call.cut:
                    self.call.close("cut")
                    return
            if getattr(answer, "length", None):
                raise http.client.IncompleteRead(b"")
            rest = self.call.close("end")
            self.settle()
            if rest:
                yield b"", rest
        except (OSError, http.client.HTTPException) as error:
            self.call.close("error")
            self.settle()
            raise TallyError(f"The connection broke: {type(error).__name__}.") from None
        finally:
            self.call.close("cancelled")
            answer.close()

    def settle(self) -> None:
        """Waits until the call's entry is in the ledger."""
        if self.call.settled is not None:
            self.call.settled.result(TIMEOUT)
