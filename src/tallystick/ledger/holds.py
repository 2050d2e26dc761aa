"""Holds: how an account moves when a hold is made, grows and ends. Rules without I/O; a shelf keeps what they change.

An account is the sum of what its holds and charges stand for, and each change of a hold takes back what it stood for
and enters what it stands for now. So the same rule moves an account and recomputes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec

from tallystick.errors import ConflictError, InputError
from tallystick.ledger.accounts import Accounts, Key, Rules, balance
from tallystick.ledger.hold import (
    Ask,
    Charge,
    Claim,
    Granted,
    Hold,
    Refused,
    Settlement,
    Stale,
    Wait,
    affordable,
    decide,
    refused,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_OUTPUT: Final = 2**53
REVIVED_US: Final = 600_000_000
"""A suspect hold that is asked to grow lives on for at least so many microseconds."""

MAX_AMOUNT: Final = 10**36
_MICROSECOND: Final = timedelta(microseconds=1)
_ENCODE: Final = msgspec.json.Encoder().encode


class Part(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A hold's part of one account. `base` and `per_output` are its claim, `base` None where it claimed nothing.
    At the end: `charged` is what was taken (None: nothing was), `kept` what stays suspect, `over` what was taken beyond
    what was still set aside."""

    budget_id: str
    value: str
    period: str
    since: str | None
    base: int | None
    per_output: int
    charged: int | None = None
    kept: int = 0
    over: int = 0

    @property
    def key(self) -> Key:
        """The account."""
        return self.budget_id, self.value, self.period

    def amount(self, output: int) -> int:
        """The claim for so many tokens of answer."""
        return 0 if self.base is None else self.base + self.per_output * output

    def claim(self) -> Claim:
        """The claim as it was asked for."""
        return Claim(
            budget_id=self.budget_id,
            value=self.value,
            period=self.period,
            base=self.base or 0,
            per_output=self.per_output,
            since=self.since,
        )


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A hold as it is stored. `settlement` is a digest of what settled it, None as long as no entry did."""

    hold_id: str
    state: str
    owner: str
    authorised_us: int
    expires_us: int
    output: int
    unlearned: bool
    payload: str
    parts: tuple[Part, ...]
    settlement: str | None = None

    def hold(self) -> Hold:
        """The hold for people."""
        settled = tuple([_charge(part, part.charged) for part in self.parts if part.charged is not None])
        claims = [(part, self._claimed(part)) for part in self.parts]
        return Hold(
            hold_id=self.hold_id,
            state=self.state,
            owner=self.owner,
            authorised_at=from_us(self.authorised_us),
            expires_at=from_us(self.expires_us),
            output=self.output,
            charges=tuple([_charge(part, amount) for part, amount in claims if amount]),
            settled=settled,
        )

    def stands_for(self, part: Part) -> tuple[int, int, int, int, int]:
        """What a part adds to its account: settled, suspect, held, unlearned, overdraft."""
        if self.state == "open":
            return 0, 0, part.amount(self.output), int(self.unlearned), 0
        if self.state == "suspect" and self.settlement is None:
            return 0, part.amount(self.output), 0, 0, 0
        if self.state == "released":
            return 0, 0, 0, 0, 0
        return part.charged or 0, part.kept, 0, 0, part.over

    def _claimed(self, part: Part) -> int:
        if self.state == "open" or (self.state == "suspect" and self.settlement is None):
            return part.amount(self.output)
        return part.kept


class Shelf(Accounts, Protocol):
    """Where a transaction finds holds and accounts, and leaves what it changed."""

    @property
    def rules(self) -> Rules:
        """The budgets."""
        ...

    def record(self, hold_id: str) -> Record | None:
        """A hold."""
        ...

    def keep(self, record: Record) -> None:
        """Stores a new or changed hold."""
        ...


class Till:
    """The rules at work on a shelf. `owner` makes the holds, `now_us` is the time in microseconds since 1970 UTC.
    Each method checks before it changes anything, so one that raises has changed nothing."""

    def __init__(self, shelf: Shelf, owner: str, now_us: int) -> None:
        self._shelf = shelf
        self._owner = owner
        self._now_us = now_us
        self._now = from_us(now_us)
        self._limits: dict[str, int | None] = {}
        self._limits_of: Rules | None = None

    def standing(self, ask: Ask) -> Granted | None:
        """The hold that this very ask has made before. Raises ConflictError where its id stands for another request,
        or for a call that has ended, InputError for claims that make no sense."""
        checked_ask(ask)
        known = self._shelf.record(ask.hold_id)
        if known is None:
            return None
        if known.payload != ask.payload:
            raise _conflict(ask.hold_id, "a hold of another request")
        if known.state != "open":
            raise _conflict(ask.hold_id, f"a hold that is {known.state}")
        return Granted(hold_id=ask.hold_id, output=known.output)

    def whole(self, ask: Ask) -> Granted | None:
        """Grants an ask that fits uncapped beside everything else, as nearly all do; None leaves it to `consider`, with
        nothing changed."""
        rules, output, shelf = self._shelf.rules, ask.output, self._shelf
        if ask.version != rules.version:
            return None
        moves = []
        for claim in ask.claims:
            if claim.since is not None:
                return None
            figures = shelf.figures((claim.budget_id, claim.value, claim.period))
            amount = claim.base + claim.per_output * output
            limit = self._limit(rules, claim.budget_id)
            if limit is not None and amount > limit - figures.settled - figures.suspect - figures.held:
                return None
            moves.append((figures, amount))
        unlearned = ask.unlearned
        for figures, amount in moves:
            figures.held += amount
            figures.unlearned += unlearned
        shelf.keep(self._granted(ask, output))
        return Granted(hold_id=ask.hold_id, output=output)

    def consider(self, ask: Ask) -> Granted | Refused | Wait | Stale:
        """What would become of an ask; changes nothing."""
        rules = self._shelf.rules
        if ask.version != rules.version:
            return Stale(rules.version)
        limits = [rules.enforced(claim.budget_id, self._now) for claim in ask.claims]
        found = [balance(self._shelf, claim, limit) for claim, limit in zip(ask.claims, limits, strict=True)]
        return decide(ask, found)

    def refusal(self, ask: Ask) -> Refused:
        """The refusal of an ask that would fit, but whose turn did not come in time: the figures of the account that
        has the least room."""
        rules, found = self._shelf.rules, []
        for claim in ask.claims:
            limit = rules.enforced(claim.budget_id, self._now)
            if limit is not None:
                stands = balance(self._shelf, claim, limit)
                found.append(
                    (limit - stands.spent - stands.held, refused(claim, stands, limit, claim.amount(ask.output)))
                )
        return msgspec.structs.replace(min(found, key=lambda one: one[0])[1], queued=True)

    def grant(self, ask: Ask, granted: Granted) -> None:
        """Sets the money aside."""
        record = self._granted(ask, granted.output)
        move(self._shelf, record, 1)
        self._shelf.keep(record)

    def extend(self, hold_id: str, output: int) -> int:
        """Lets a hold cover more of the answer, as far as there is room. A suspect one lives again: who asks for more
        is still there. Raises InputError where the call has ended or is unknown."""
        record = self._shelf.record(hold_id)
        if not 0 <= output < MAX_OUTPUT:
            raise InputError(f"A hold cannot cover {output} tokens.", money="The hold is as it was.")
        if record is None or record.settlement is not None or record.state not in ("open", "suspect"):
            what = "There is no hold" if record is None else f"The hold is {record.state}:"
            raise InputError(f"{what} {hold_id}, so it cannot grow.", money="Nothing was set aside.")
        alive = record
        if record.state == "suspect":
            until = max(record.expires_us, self._now_us + REVIVED_US)
            alive = msgspec.structs.replace(record, state="open", owner=self._owner, expires_us=until)
            self._change(record, alive)
        claims = [part.claim() for part in alive.parts]
        limits = [self._shelf.rules.enforced(claim.budget_id, self._now) for claim in claims]
        found = [balance(self._shelf, claim, limit) for claim, limit in zip(claims, limits, strict=True)]
        covered = affordable(claims, found, alive.output, output)
        if covered != alive.output:
            self._change(alive, msgspec.structs.replace(alive, output=covered))
        return covered

    def check(self, hold_id: str, settlement: Settlement) -> bool:
        """Whether a settlement is new; False when it is the one that stands. Raises ConflictError where another one
        stands, InputError for charges that make no sense."""
        _checked(settlement.charges)
        known = self._shelf.record(hold_id)
        if known is None or known.settlement is None:
            return True
        if known.settlement != digest(settlement):
            raise _conflict(hold_id, "another settlement")
        return False

    def settle(self, hold_id: str, settlement: Settlement) -> None:
        """Ends a hold with what the call cost, or enters the charges of a call without one; after `check`."""
        record = self._shelf.record(hold_id)
        if record is None:
            parts = [
                Part(one.budget_id, one.value, one.period, None, None, 0, one.amount) for one in settlement.charges
            ]
            self._change(None, self._bare(hold_id, tuple(parts), settlement))
            return
        if record.state == "open" and not settlement.keep and self._settle_open(record, settlement):
            return
        # What was given back may be somebody else's by now: whatever a late call cost is then taken beyond it.
        live = record.state in ("open", "suspect")
        charges = {(one.budget_id, one.value, one.period): one.amount for one in settlement.charges}
        parts, left = [], 0
        for part in record.parts:
            charged = charges.pop(part.key, None)
            aside = part.amount(record.output) if live else part.charged or 0
            taken = charged or 0
            kept = max(0, aside - taken) if settlement.keep and live else 0
            over = max(0, taken - aside) + part.over if part.base is not None else 0
            claim = part.budget_id, part.value, part.period, part.since, part.base, part.per_output
            parts.append(Part(*claim, charged, kept, over))
            left += kept
        parts += [Part(*key, None, None, 0, amount) for key, amount in charges.items()]
        state = "suspect" if left else "settled"
        ended = msgspec.structs.replace(record, state=state, parts=tuple(parts), settlement=digest(settlement))
        self._change(record, ended)

    def _settle_open(self, record: Record, settlement: Settlement) -> bool:
        """Ends an open hold that is charged to the very accounts it claims from, as nearly all are; False leaves it,
        with nothing changed."""
        charges, output = settlement.charges, record.output
        if len(charges) != len(record.parts):
            return False
        parts = []
        for part, one in zip(record.parts, charges, strict=True):
            if part.period != one.period or part.budget_id != one.budget_id or part.value != one.value:
                return False
            taken = one.amount
            over = max(0, taken - part.amount(output))
            claim = part.budget_id, part.value, part.period, part.since, part.base, part.per_output
            parts.append(Part(*claim, taken, 0, over))
        unlearned = record.unlearned
        for part in parts:
            figures = self._shelf.figures(part.key)
            figures.held -= part.amount(output)
            figures.unlearned -= unlearned
            figures.settled += part.charged or 0
            figures.overdraft += part.over
        self._shelf.keep(
            Record(
                hold_id=record.hold_id,
                state="settled",
                owner=record.owner,
                authorised_us=record.authorised_us,
                expires_us=record.expires_us,
                output=output,
                unlearned=unlearned,
                payload=record.payload,
                parts=tuple(parts),
                settlement=digest(settlement),
            )
        )
        return True

    def release(self, hold_id: str) -> bool:
        """Gives back the hold of a call that was never sent; whether there was anything to give back. Raises
        ConflictError for a call that was settled."""
        record = self._shelf.record(hold_id)
        if record is None or record.state == "released":
            return False
        if record.state == "settled" or record.settlement is not None:
            raise _conflict(hold_id, "a settled call")
        move(self._shelf, record, -1)
        self._shelf.keep(msgspec.structs.replace(record, state="released"))
        return True

    def resolve(self, hold_id: str, charges: Sequence[Charge] | None) -> None:
        """Puts an operator's word in the place of what is suspect: so much was spent, or (None) nothing of it. Raises
        InputError for a hold that is not suspect."""
        record = self._shelf.record(hold_id)
        if record is None or record.state != "suspect":
            what = "There is no hold" if record is None else f"Not suspect but {record.state} is the hold"
            raise InputError(
                f"{what} {hold_id}.", money="No account was changed.", todo="Suspect holds: tally budget holds."
            )
        _checked(charges or ())
        if charges is None and record.settlement is None:
            self._change(record, msgspec.structs.replace(record, state="released"))
            return
        given = {(one.budget_id, one.value, one.period): one.amount for one in charges or ()}
        parts = []
        for part in record.parts:
            more = given.pop(part.key, None)
            aside = part.amount(record.output) if record.settlement is None else part.kept
            charged = part.charged if more is None else (part.charged or 0) + more
            over = part.over + max(0, (more or 0) - aside) if part.base is not None else 0
            parts.append(msgspec.structs.replace(part, charged=charged, kept=0, over=over))
        parts += [Part(*key, None, None, 0, amount) for key, amount in given.items()]
        self._change(record, msgspec.structs.replace(record, state="settled", parts=tuple(parts)))

    def correct(self, call_id: str, difference: int) -> None:
        """A call cost so many picodollars more (or less) than was entered."""
        record = self._shelf.record(call_id)
        if record is None or not difference:
            return
        rules, parts = self._shelf.rules, []
        for part in record.parts:
            if part.charged is None or not rules.in_money(part.budget_id):
                parts.append(part)
                continue
            over = max(0, part.over + difference) if part.base is not None else 0
            parts.append(msgspec.structs.replace(part, charged=part.charged + difference, over=over))
        self._change(record, msgspec.structs.replace(record, parts=tuple(parts)))

    def suspect(self, record: Record) -> None:
        """Nobody knows the end of this call any more: what it holds counts as spent."""
        self._change(record, msgspec.structs.replace(record, state="suspect"))

    def _limit(self, rules: Rules, budget_id: str) -> int | None:
        """The limit that asks have to keep, looked up once."""
        if rules is not self._limits_of:
            self._limits_of, self._limits = rules, {}
        if budget_id not in self._limits:
            self._limits[budget_id] = rules.enforced(budget_id, self._now)
        return self._limits[budget_id]

    def _granted(self, ask: Ask, output: int) -> Record:
        return Record(
            hold_id=ask.hold_id,
            state="open",
            owner=self._owner,
            authorised_us=self._now_us,
            expires_us=to_us(ask.expires_at),
            output=output,
            unlearned=ask.unlearned,
            payload=ask.payload,
            parts=tuple(
                [Part(one.budget_id, one.value, one.period, one.since, one.base, one.per_output) for one in ask.claims]
            ),
        )

    def _bare(self, hold_id: str, parts: tuple[Part, ...], settlement: Settlement) -> Record:
        return Record(
            hold_id=hold_id,
            state="settled",
            owner="",
            authorised_us=self._now_us,
            expires_us=self._now_us,
            output=0,
            unlearned=False,
            payload="",
            parts=parts,
            settlement=digest(settlement),
        )

    def _change(self, before: Record | None, after: Record) -> None:
        if before is not None:
            move(self._shelf, before, -1)
        move(self._shelf, after, 1)
        self._shelf.keep(after)


def move(accounts: Accounts, record: Record, sign: int) -> None:
    """Enters what a hold stands for into its accounts, or takes it back."""
    if record.state == "open":
        # Most of them, so without a detour.
        output, number = record.output, sign * record.unlearned
        for part in record.parts:
            figures = accounts.figures((part.budget_id, part.value, part.period))
            if part.base is not None:
                figures.held += sign * (part.base + part.per_output * output)
            figures.unlearned += number
        return
    for part in record.parts:
        settled, suspect, held, unlearned, overdraft = record.stands_for(part)
        figures = accounts.figures(part.key)
        figures.settled += sign * settled
        figures.suspect += sign * suspect
        figures.held += sign * held
        figures.unlearned += sign * unlearned
        figures.overdraft += sign * overdraft


def checked_ask(ask: Ask) -> None:
    """Raises InputError for an ask that makes no sense."""
    claims = ask.claims
    sound = bool(ask.hold_id) and 0 <= ask.least <= ask.output < MAX_OUTPUT
    for claim in claims:
        sound = sound and 0 <= claim.base < MAX_AMOUNT and 0 <= claim.per_output < MAX_AMOUNT
    if len(claims) > 1:
        sound = sound and len({(claim.budget_id, claim.value, claim.period) for claim in claims}) == len(claims)
    if not sound:
        raise InputError(
            f"The ask for hold {ask.hold_id!r} makes no sense: negative, absurd or repeated claims.",
            money="Nothing was set aside.",
        )


def digest(settlement: Settlement) -> str:
    """What tells two settlements apart."""
    content = [[one.budget_id, one.value, one.period, str(one.amount)] for one in settlement.charges]
    content.sort()
    return hashlib.sha256(_ENCODE((settlement.keep, content))).hexdigest()[:32]


def from_us(microseconds: int) -> datetime:
    """The instant so many microseconds after 1970 UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def to_us(instant: datetime) -> int:
    """The inverse of `from_us`."""
    return (instant - EPOCH) // _MICROSECOND


def _checked(charges: Sequence[Charge]) -> None:
    sound = True
    for one in charges:
        sound = sound and 0 <= one.amount < MAX_AMOUNT
    if len(charges) > 1:
        sound = sound and len({(one.budget_id, one.value, one.period) for one in charges}) == len(charges)
    if not sound:
        raise InputError("Charges are amounts of 0 or more, one for each account.", money="No account was changed.")


def _charge(part: Part, amount: int) -> Charge:
    return Charge(budget_id=part.budget_id, value=part.value, period=part.period, amount=amount)


def _conflict(hold_id: str, what: str) -> ConflictError:
    return ConflictError(
        f"{hold_id} is the id of {what} already.",
        money="The first one stands; no account was changed.",
        todo="Use a new id for each call.",
    )
