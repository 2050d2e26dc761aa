"""Leave: what a call needs from budgets before it may go, while it streams, and at its end. The seam between the meter,
which follows bytes, and admission, which knows budgets. All of it is without I/O of its own: whoever holds the socket
waits for the futures in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Final, Protocol

import msgspec

from tallystick.core.attribution import Tags
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Refused, Settlement
from tallystick.ledger.ledger import Receipt
from tallystick.wire.facts import RequestFacts


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf a call is made, and where it belongs: what the caller says, not the wire."""

    tags: Tags = Tags()
    run_id: str | None = None
    parent_run: str | None = None
    step: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    context: Mapping[str, str] = {}


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """The call may go. `max_output` is what the request's max-output field has to be set to (None: leave it alone);
    `capped` says that this is less than the caller asked for or would have got. `remaining` is what the tightest budget
    has left beside this call, in its own unit, with that budget."""

    max_output: int | None = None
    capped: bool = False
    budget: Budget | None = None
    remaining: int | None = None


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """The call may not go. `message` is for people and names spent, held and limit; `code` is a word for programs
    (budget_exceeded, unpriced_model, ledger_unavailable, unmetered); `retry_after` is in seconds, where waiting
    helps."""

    message: str
    code: str = "budget_exceeded"
    refused: Refused | None = None
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status that a refusal with this code bears; no money is a 429."""
        return _STATUS.get(self.code, 429)


_STATUS: Final = {"ledger_unavailable": 503, "unpriced_model": 400, "unmetered": 403, "model_not_allowed": 403}


class Keep(Protocol):
    """Keeps what is to be written at a call's end until the ledger has it."""

    def __call__(self, entry: Entry, settlement: Settlement | None) -> bool:
        """Whether it is safe now. Without a settlement no budget is concerned."""
        ...


class Leave(Protocol):
    """One call's leave. `ask` is called once, before the request goes; the rest only if that came out Admitted."""

    def ask(self) -> Future[Admitted | Denied]:
        """Holds what the call can cost; done at once where no hard budget concerns it."""
        ...

    @property
    def covered(self) -> int | None:
        """Tokens of answer the hold covers now; None where nothing limits it."""
        ...

    @property
    def hold_id(self) -> str | None:
        """The hold that the call has now; None where no money is set aside for it."""
        ...

    def grow(self, output: int) -> Future[int]:
        """Asks for cover up to so many tokens of answer; the result is what is covered then."""
        ...

    def settle(self, entry: Entry, keep: Keep | None = None) -> Future[Receipt]:
        """Enters the call and settles its hold, in one transaction. `keep` is asked first whether it can keep all that
        safe; if it can, the ledger takes its time."""
        ...

    def release(self) -> Future[None]:
        """Gives the hold back: the request was never sent."""
        ...


class Admission(Protocol):
    """Gives leave to calls."""

    def leave(self, call_id: str, facts: RequestFacts, who: Who, at: datetime) -> Leave:
        """The leave of one call, made before it is sent. Never blocks and never raises."""
        ...
