"""Leaves: what a call needs from hard budgets, which hold money for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.errors import TallyError, UnpricedError
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Ask, Claim, Granted, Refused, Stale
from tallystick.ledger.promise import Promise
from tallystick.metering.bounding import (
    Priced,
    find_card,
    quick_input,
    rates_of,
    silent,
    traits_of,
)
from tallystick.metering.claims import Account, Attributes, Bound, Matcher, settlement
from tallystick.metering.desk import Desk
from tallystick.metering.leave import Admitted, Denied, Keep, Who
from tallystick.metering.passes import Answer, charged, done, unpriced
from tallystick.metering.sites import Lesson, Site
from tallystick.wire.facts import RequestFacts

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Found
    from tallystick.ledger.ledger import Receipt

FLOOR: Final = 16
"""With fewer tokens of answer than this a call is of no use, and is refused rather than capped."""

AMPLE: Final = 32
"""An account has ample room when so many calls like this one fit into it; then bytes bound the input."""

STREAM_START: Final = 1024
"""Tokens of answer held at first for a stream without a maximum and without history; the hold grows with it."""

WHOLE_START: Final = 4096
"""The same for an answer that comes in one piece; its maximum is set to what is held."""

ROOMY: Final = 4
"""With ample room an answer in one piece may be so many times as long as its site's learned bound."""

INLINE_BYTES: Final = 65_536
"""Larger requests are looked at in another thread."""

EXPIRES: Final = timedelta(hours=1)
TRIES: Final = 20
_STRANGER: Final = Site()
"""Stands for the site of a call that was let go before anybody looked for it; it learns nothing."""

_SETTABLE: Final = (".chat", ".messages", ".responses", ".generateContent", ".converse")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a leave is asked for; `bears` gives what the call bears of names that budgets may name."""

    call_id: str
    facts: RequestFacts
    who: Who
    at: datetime
    bears: Callable[[frozenset[str]], Attributes]


class _Answered(Promise[Answer]):
    """The answer of a leave; who does not want to know it any more gives the leave up."""

    def __init__(self, given_up: Callable[[], None]) -> None:
        super().__init__()
        self._given_up = given_up

    def cancel(self) -> bool:
        before = self.done()
        cancelled = super().cancel()
        if cancelled and not before:
            self._given_up()
        return cancelled


class HeldLeave:
    """The leave of a call that hard budgets concern; `accounts` are those of the budgets of a version.

    It asks at most twice. With ample room it asks for a bound that costs nothing to make, all of it or nothing. Else,
    or when that does not fit, the input is counted, and the answer may be capped to what there is.
    """

    def __init__(self, desk: Desk, call: Call, version: int, accounts: tuple[Account, ...]) -> None:
        self._desk = desk
        self._call = call
        self._traits = traits_of(call.facts)
        self._version = version
        self._accounts = accounts
        self._hard = hard(accounts)
        self._future = _Answered(self._dropped)
        self._gone = False
        self._found: Found | UnpricedError | None = None
        self._site = _STRANGER
        self._name = ""
        self._lesson: Lesson | None = None
        self._deadline = 0.0
        self._counted: int | None = None
        self._asked: Ask | None = None
        self._free: tuple[int, ...] = ()
        self._granted: Granted | None = None
        self._thoughts = 0
        self._covered: int | None = None
        self._tries = 0

    # What the meter calls.

    def ask(self) -> Future[Answer]:
        """Holds what the call can cost at most. What takes long, such as loading a tokenizer, is done in another
        thread, because the caller's may be an event loop. Cancelling the future gives everything back."""
        if self._call.facts.body_bytes <= INLINE_BYTES and self._desk.warm(self._call.facts):
            self._safely(self._begin)
        else:
            self._desk.run(lambda: self._safely(self._begin), self._unavailable)
        return self._future

    @property
    def covered(self) -> int | None:
        """Tokens of answer the hold covers; None where nothing limits it."""
        return self._covered

    @property
    def hold_id(self) -> str | None:
        """The call's own id, while money is held for it."""
        return None if self._granted is None else self._call.call_id

    def grow(self, output: int) -> Future[int]:
        """Asks for cover up to so many tokens of answer; what is covered then. Fewer than asked, and never fewer than
        now, when the ledger cannot be asked."""
        if self._covered is None or self._granted is None or output <= self._covered:
            return done(output if self._covered is None else self._covered)
        result: Future[int] = Future()

        def grown(future: Future[int]) -> None:
            if future.exception() is None:
                before, after = self._covered or 0, max(0, future.result() - self._thoughts)
                if self._asked is not None and after > before:
                    # Only what goes by the answer's length grows.
                    more = [msgspec.structs.replace(claim, base=0) for claim in self._asked.claims]
                    self._desk.flying(more, after - before, 1)
                    self._granted = Granted(hold_id=self._call.call_id, output=future.result())
                self._covered = max(before, after)
            else:
                self._desk.faults += 1
            result.set_result(self._covered or 0)

        self._desk.ledger.extend(self._call.call_id, output + self._thoughts).add_done_callback(grown)
        return result

    def settle(self, entry: Entry, keep: Keep | None = None) -> Future[Receipt]:
        """Enters the call, charges its accounts and ends its hold, and lets its call site learn."""
        held = self._granted is not None
        if held and entry.hold_id is None:
            entry = msgspec.structs.replace(entry, hold_id=self._call.call_id)
        if self._site is not _STRANGER:
            self._site.learn(self._counted, entry)
        taken = settlement(entry, self._accounts)
        receipt = charged(self._desk, entry, self._accounts, taken, keep)
        self._desk.charged(taken.charges)
        self._landed()
        if held and self._site.learned and self._desk.sites.due(self._name, self._site):
            self._desk.run(lambda: self._desk.sites.write(self._name), self._not_written)
        return receipt

    def release(self) -> Future[None]:
        """Gives the hold back: the request was never sent. One that is still being asked for is not asked for any
        more, or given back as soon as it is there."""
        self._gone = True
        asked = self._asked is not None
        self._landed()
        return self._desk.ledger.release(self._call.call_id) if asked else done(None)

    # What comes before the first ask.

    def _dropped(self) -> None:
        self._desk.run(self._forget, self._not_written)

    def _forget(self) -> None:
        """Nobody waits for the answer any more."""
        self._gone = True
        self._landed()
        self._undo()

    def _undo(self) -> None:
        """Gives back what may be held; where the ask stands in the ledger's line, this takes it out."""
        try:
            self._desk.ledger.release(self._call.call_id)
        except TallyError:
            self._desk.faults += 1

    def _go_by(self, matcher: Matcher) -> None:
        self._accounts = matcher.concerned(self._call.bears(matcher.names), self._call.at)
        self._hard = hard(self._accounts)
        self._version = matcher.version

    def _begin(self) -> None:
        desk, call = self._desk, self._call
        desk.sites.load()
        self._deadline = desk.monotonic() + desk.wait
        self._found = find_card(call.facts, desk.catalog(), call.at)
        if isinstance(self._found, UnpricedError) and any(one.budget.unit == "usd" for one in self._hard):
            self._deny(unpriced(call.facts, self._found, self._hard))
            return
        self._find_site()
        self._enter()

    def _find_site(self) -> None:
        call = self._call
        self._name = self._desk.sites.name_of(call.facts, call.who.tags, system=self._traits.system)
        self._site = self._desk.sites.site(self._name)

    def _enter(self) -> None:
        """Goes on, unless another call of the site is about to teach how much input the provider sees, and there is not
        room enough not to care."""
        if not self._site.learned and self._ample(self._bound(self._count(), self._output(roomy=False))) is None:
            self._desk.sites.key_again()
            self._find_site()
            self._desk.sites.ask_ledger(self._name, self._site)
            if not self._site.learned and self._desk.monotonic() < self._deadline and not self._first_of_site():
                return
        self._approach()

    def _first_of_site(self) -> bool:
        """Whether this call is the one that teaches; if not, it goes on when that one has."""
        lesson, fresh = self._site.begin()
        if fresh:
            self._lesson = lesson
            self._desk.later(self._desk.wait, lesson.over)
            return True
        return not lesson.when_over(lambda: self._desk.run(lambda: self._safely(self._enter), self._unavailable))

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except TallyError as error:
            self._unavailable(error)

    def _approach(self) -> None:
        facts, site = self._call.facts, self._site
        plain = site.learned and not self._traits.media and not self._traits.remembered
        tokens = site.input(quick_input(facts)) if plain else site.input(self._count())
        for roomy in (True, False):
            bound = self._bound(tokens, self._output(roomy=roomy))
            claims = self._ample(bound)
            if claims is not None:
                self._authorise(bound, claims, least=bound.output, wait=0.0)
                return
        self._last()

    def _last(self) -> None:
        """The second ask: everything counted, capped to what there is, and worth waiting for."""
        bound = self._bound(self._site.input(self._count()), self._output(roomy=False))
        wait = max(0.0, self._deadline - self._desk.monotonic())
        least = min(FLOOR * self._call.facts.answers, bound.output)
        self._free = ()
        self._authorise(bound, tuple([one.claim(bound) for one in self._hard]), least=least, wait=wait, last=True)

    # What the call may cost.

    def _count(self) -> int:
        if self._counted is None:
            self._counted = self._desk.count(self._call.facts)
        return self._counted

    def _output(self, *, roomy: bool) -> int:
        """Tokens of answer to ask for: what the request allows; else what earlier calls of the site needed; else a
        start. Never more than the model can give."""
        facts, site = self._call.facts, self._site
        self._thoughts = 0
        if silent(facts):
            return 0
        if facts.max_output is not None:
            return facts.max_output * facts.answers
        row = None if isinstance(self._found, UnpricedError) or self._found is None else self._found.row
        most = None if row is None or not row.max_output else row.max_output * facts.answers
        learned = site.output
        if facts.stream:
            self._thoughts = site.reasoning
            wanted = max(learned or 0, self._thoughts + FLOOR) if learned else STREAM_START + self._thoughts
        else:
            wanted = max(learned or WHOLE_START * facts.answers, FLOOR)
            if roomy:
                wanted = max(ROOMY * wanted, WHOLE_START * facts.answers)
        return wanted if most is None else min(wanted, most)

    def _bound(self, tokens: int, output: int) -> Bound:
        if isinstance(self._found, UnpricedError) or self._found is None:
            return Bound(pico=None, pico_per_output=0, input=tokens, output=output)
        try:
            call = self._call
            context = call.who.context
            rates: Priced = rates_of(call.facts, self._found, tokens, call.at, context, traits=self._traits)
        except UnpricedError as error:
            self._found = error
            return Bound(pico=None, pico_per_output=0, input=tokens, output=output)
        return rates.bound(tokens, output)

    def _ample(self, bound: Bound) -> tuple[Claim, ...] | None:
        """The claims of a call with this bound, where every account has ample room for it."""
        claims, room = [], []
        for account in self._hard:
            free = self._desk.free(account)
            claim = account.claim(bound)
            if free is None or free < AMPLE * claim.amount(bound.output):
                return None
            claims.append(claim)
            room.append(free)
        self._free = tuple(room)
        return tuple(claims)

    # Asking.

    def _authorise(
        self, bound: Bound, claims: tuple[Claim, ...], *, least: int, wait: float, last: bool = False
    ) -> None:
        if bound.pico is None and any(one.budget.unit == "usd" for one in self._hard):
            why = self._found if isinstance(self._found, UnpricedError) else UnpricedError("It has no rate.")
            self._deny(unpriced(self._call.facts, why, self._hard))
            return
        output = bound.output
        if not any(claim.per_output for claim in claims):
            output = least = 0
        facts = self._call.facts
        ask = Ask(
            hold_id=self._call.call_id,
            claims=claims,
            output=output,
            least=least,
            payload=self._desk.payload(facts),
            version=self._version,
            expires_at=self._desk.now() + EXPIRES,
            unlearned=not self._site.learned or self._traits.remembered,
        )
        self._asked = ask
        if self._gone:
            self._landed()
            return

        def answered(future: Future[Granted | Refused | Stale]) -> None:
            # What a callback raises is only logged; the caller must not wait for an answer that never comes, and what
            # nobody knows of must not stay held.
            told = False
            try:
                self._hear(ask, future, last=last)
                told = True
            finally:
                if not told:
                    self._forget()
                    self._unavailable(RuntimeError("the answer of the ledger could not be taken in"))

        self._desk.ledger.authorise(ask, wait=wait, ample=not last).add_done_callback(answered)

    def _hear(self, ask: Ask, future: Future[Granted | Refused | Stale], *, last: bool) -> None:
        error = future.exception()
        if error is not None:
            self._unavailable(error)
            return
        verdict = future.result()
        if self._gone:
            if isinstance(verdict, Granted):
                self._undo()
        elif isinstance(verdict, Granted):
            self._admit(ask, verdict)
        elif isinstance(verdict, Stale):
            self._desk.run(self._anew, self._unavailable)
        elif last:
            self._desk.run(lambda: self._refuse(verdict), self._unavailable)
        else:
            self._desk.run(lambda: self._safely(self._last), self._unavailable)

    def _anew(self) -> None:
        """Budgets have changed since the claims were made."""
        self._tries += 1
        self._go_by(self._desk.matcher(fresh=True))
        if not self._hard:
            self._answer(Admitted())
        elif self._tries < TRIES:
            self._last()
        else:
            self._unavailable(UnpricedError("The budgets change faster than a call can be asked about."))

    # Answers.

    def _admit(self, ask: Ask, granted: Granted) -> None:
        facts = self._call.facts
        output = granted.output
        self._desk.flying(ask.claims, output, 1)
        self._granted, self._asked = granted, ask
        if self._gone:
            # Given back by another thread in this moment.
            self._landed()
            return
        limited = any(claim.per_output for claim in ask.claims)
        if limited and not silent(facts):
            self._covered = max(output - self._thoughts, min(FLOOR, output))
        capped = output < ask.output
        sets = limited and facts.api.endswith(_SETTABLE) and ask.output > 0
        # A stream without a maximum grows with its hold, unless room is short or the site is not known yet.
        whole = facts.max_output is None and (not facts.stream or ask.unlearned)
        most = max(1, output // facts.answers) if sets and (capped or whole) else None
        budget, remaining = self._tightest(ask, output)
        self._answer(Admitted(max_output=most, capped=capped, budget=budget, remaining=remaining))

    def _tightest(self, ask: Ask, output: int) -> tuple[Budget | None, int | None]:
        """The budget that has the smallest share of its limit left beside this call, and how much that is."""
        found: tuple[float, Budget, int] | None = None
        for number, account in enumerate(self._hard):
            # With ample room it was seen a moment ago.
            free = self._free[number] - ask.claims[number].amount(output) if self._free else self._desk.free(account)
            if free is not None:
                share = free / max(1, account.budget.limit)
                if found is None or share < found[0]:
                    found = share, account.budget, max(0, free)
        return (None, None) if found is None else (found[1], found[2])

    def _refuse(self, refused: Refused) -> None:
        places = {(one.budget.budget_id, one.value): one for one in self._hard}
        account = places.get((refused.budget_id, refused.value))
        after = self._desk.retry_after(refused, account)
        budget = None if account is None else account.budget
        self._deny(Denied(message=self._desk.refusal(budget, refused, after), refused=refused, retry_after=after))

    def _unavailable(self, error: BaseException) -> None:
        """The ledger cannot be asked: one budget that fails closed is enough to refuse."""
        self._desk.faults += 1
        closed = [one.budget.budget_id for one in self._hard if one.budget.failure == "closed"]
        if not closed:
            self._answer(Admitted())
            return
        what = f"The ledger cannot be asked about budget {closed[0]}, which fails closed: {error}"
        self._deny(Denied(message=f"{what} The call was not sent.", code="ledger_unavailable"))

    def _not_written(self, _error: BaseException) -> None:
        self._desk.faults += 1

    def _deny(self, denied: Denied) -> None:
        self._landed()
        self._answer(denied)

    def _answer(self, answer: Answer) -> None:
        try:
            self._future.set_result(answer)
        except InvalidStateError:
            # Told before; or cancelled, which gives back what was granted.
            return

    def _landed(self) -> None:
        """The call is not in flight any more: what this process holds is less, and others of the site may go on."""
        granted, ask, self._granted, self._asked = self._granted, self._asked, None, None
        if granted is not None and ask is not None:
            self._desk.flying(ask.claims, granted.output, -1)
        lesson, self._lesson = self._lesson, None
        if lesson is not None:
            self._site.end(lesson)
            lesson.over()


def hard(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
    """The accounts whose budgets refuse calls."""
    return tuple([one for one in accounts if one.budget.hard and not one.budget.paused])
