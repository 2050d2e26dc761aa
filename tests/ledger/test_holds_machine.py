"""Any order of asks, growth, ends, deaths, edits and new periods, against a naive model that adds everything up anew."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hold_samples import LATER, ask, budget, call, charge, claim, settlement
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledger_samples import NOW, correction, cost

from tallystick.errors import ConflictError, InputError
from tallystick.ledger.hold import Granted, Refused, Seed
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger

LONG = bool(os.environ.get("TALLY_LONG"))
NAMES = ("a", "b")
Key = tuple[str, str]
amounts = st.integers(0, 60)


@dataclass
class Call:
    """What the model knows about one hold."""

    claims: dict[Key, tuple[int, int]]
    output: int
    state: str = "open"
    mine: bool = True
    until: datetime = LATER
    entered: bool = False
    charged: dict[Key, int] = field(default_factory=dict)
    kept: dict[Key, int] = field(default_factory=dict)
    over: dict[Key, int] = field(default_factory=dict)
    cost: int = 0
    fixes: int = 0

    def claimed(self, key: Key) -> int:
        base, per_output = self.claims.get(key, (0, 0))
        return base + per_output * self.output

    def live(self) -> bool:
        return self.state == "open" or (self.state == "suspect" and not self.entered)


class Machine(RuleBasedStateMachine):
    """Two doors to one ledger; whoever goes through the second can die."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOW
        self.ledger: Ledger = self.opened()
        self.second: Ledger = self.ledger
        self.calls: dict[str, Call] = {}
        self.limits: dict[str, int] = {}
        self.known: set[str] = set()
        self.excess: dict[Key, int] = {}
        self.seeds: dict[Key, int] = {}
        self.period = 1
        self.version = 0
        self.number = 0

    def opened(self) -> Ledger:
        return MemoryLedger(clock=self.time)

    def time(self) -> float:
        return self.now.timestamp()

    def teardown(self) -> None:
        assert self.ledger.verify() == []
        self.second.close()
        self.ledger.close()
        self.folder.cleanup()

    def total(self, key: Key) -> tuple[int, int, int]:
        """settled, suspect, held: added up anew."""
        settled, suspect, held = self.seeds.get(key, 0), 0, 0
        for one in self.calls.values():
            settled += one.charged.get(key, 0)
            suspect += one.kept.get(key, 0)
            if one.state == "open":
                held += one.claimed(key)
            elif one.live():
                suspect += one.claimed(key)
        return settled, suspect, held

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 300), seed=st.integers(0, 20))
    def put(self, name: str, limit: int, seed: int) -> None:
        key = name, f"p{self.period}"
        if key not in self.accounts():
            self.seeds[key] = seed
        seeds = [Seed(value="", period=key[1], settled=seed)]
        self.version = self.ledger.put_budget(budget(name, limit), seeds).version
        self.limits[name] = limit
        self.known.add(name)
        # Where an account stands above its new limit it stays, and may not go further.
        for known in self.accounts():
            if known[0] == name:
                self.excess[known] = max(0, sum(self.total(known)) - limit - self.overdraft(known))

    def accounts(self) -> set[Key]:
        return {(one.budget_id, one.period) for one in self.ledger.accounts()}

    def overdraft(self, key: Key) -> int:
        return sum(one.over.get(key, 0) for one in self.calls.values())

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name: str) -> None:
        if name in self.limits:
            del self.limits[name]
            self.version = self.ledger.drop_budget(name).version
        else:
            with pytest.raises(InputError):
                self.ledger.drop_budget(name)

    @rule()
    def roll_over(self) -> None:
        self.period += 1

    @rule(
        bases=st.dictionaries(st.sampled_from(NAMES), st.tuples(amounts, st.integers(0, 3)), min_size=1),
        output=st.integers(0, 40),
        least=st.integers(0, 40),
        mine=st.booleans(),
        overdue=st.booleans(),
    )
    def authorise(
        self, bases: dict[str, tuple[int, int]], output: int, least: int, *, mine: bool, overdue: bool
    ) -> None:
        self.number += 1
        hold_id, period = f"c{self.number}", f"p{self.period}"
        claims = [claim(*sizes, budget_id=name, period=period) for name, sizes in bases.items()]
        until = self.now + timedelta(seconds=30) if overdue else LATER
        wanted = ask(hold_id, *claims, output=output, least=min(least, output), version=self.version, expires_at=until)
        door = self.ledger if mine else self.second
        found = door.authorise(wanted).result(20)
        one = Call({(name, period): sizes for name, sizes in bases.items()}, output, mine=mine, until=until)
        fits = {key: self.fits(key, one) for key in one.claims}
        if isinstance(found, Refused):
            assert not all(fits.values())
            assert (found.spent, found.held) == self.stands((found.budget_id, period))
            return
        assert isinstance(found, Granted)
        assert min(least, output) <= found.output <= output
        if found.output < output:
            # A call is capped only where waiting would not have helped.
            assert any(not self.fits(key, one, held=False) for key in one.claims)
        one.output = found.output
        assert all(self.fits(key, one) for key in one.claims)
        assert door.authorise(wanted).result(20) == found  # the same ask again
        self.calls[hold_id] = one

    def stands(self, key: Key) -> tuple[int, int]:
        settled, suspect, held = self.total(key)
        return settled + suspect, held

    def fits(self, key: Key, one: Call, *, held: bool = True) -> bool:
        limit = self.limits.get(key[0])
        spent, holding = self.stands(key)
        return limit is None or one.claimed(key) + spent + (holding if held else 0) <= limit

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), more=st.integers(0, 60))
    def extend(self, data: st.DataObject, more: int) -> None:
        hold_id, one = self.some(data)
        if not one.live():
            with pytest.raises(InputError):
                self.ledger.extend(hold_id, more).result(20)
            return
        if one.state == "suspect":
            one.state, one.mine = "open", True
            one.until = max(one.until, self.now + timedelta(minutes=10))
        before = one.output
        covered = self.ledger.extend(hold_id, more).result(20)
        one.output = covered
        assert before <= covered <= max(before, more)
        assert covered == before or all(self.stands_within(key) for key, sizes in one.claims.items() if sizes[1])
        if covered < more:
            one.output += 1
            assert not all(self.stands_within(key) for key in one.claims)
            one.output = covered

    def stands_within(self, key: Key) -> bool:
        limit = self.limits.get(key[0])
        return limit is None or sum(self.stands(key)) <= limit

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), costs=st.tuples(amounts, amounts), keep=st.booleans(), mine=st.booleans())
    def settle(self, data: st.DataObject, costs: tuple[int, int], *, keep: bool, mine: bool) -> None:
        hold_id, one = self.some(data)
        charges = dict(zip(one.claims, costs, strict=False))
        words = settlement(*(charge(amount, key[0], period=key[1]) for key, amount in charges.items()), keep=keep)
        door = self.ledger if mine else self.second
        if one.entered:
            with pytest.raises(ConflictError):
                door.settle(call(hold_id, costs[0] + 1000), words).result(20)
            return
        for _ in range(2):
            door.settle(call(hold_id, costs[0]), words).result(20)
        for key in one.claims:
            aside = one.claimed(key) if one.live() else one.charged.get(key, 0)
            one.kept[key] = max(0, aside - charges.get(key, 0)) if keep and one.live() else 0
            one.over[key] = one.over.get(key, 0) + max(0, charges.get(key, 0) - aside)
        one.charged, one.entered, one.cost = charges, True, costs[0]
        one.state = "suspect" if any(one.kept.values()) else "settled"

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), amount=amounts)
    def correct(self, data: st.DataObject, amount: int) -> None:
        hold_id, one = self.some(data)
        if not one.entered:
            return
        one.fixes += 1
        fix = correction(hold_id, f"{hold_id}-{one.fixes}", cost=cost(amount).to_json())
        self.ledger.append([fix])
        for key in [key for key in one.charged if key[0] in self.known]:
            one.charged[key] += amount - one.cost
            one.over[key] = max(0, one.over.get(key, 0) + amount - one.cost)
        one.cost = amount

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold_id, one = self.some(data)
        if one.state == "settled" or one.entered:
            with pytest.raises(ConflictError):
                self.ledger.release(hold_id).result(20)
            return
        self.second.release(hold_id).result(20)
        one.state = "released"

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), amount=amounts, nothing=st.booleans())
    def resolve(self, data: st.DataObject, amount: int, *, nothing: bool) -> None:
        hold_id, one = self.some(data)
        charges = None if nothing else [charge(amount, key[0], period=key[1]) for key in one.claims]
        if one.state != "suspect":
            with pytest.raises(InputError):
                self.ledger.resolve(hold_id, charges)
            return
        self.ledger.resolve(hold_id, charges)
        for key in one.claims:
            aside = one.claimed(key) if not one.entered else one.kept.get(key, 0)
            if not nothing:
                one.over[key] = one.over.get(key, 0) + max(0, amount - aside)
                one.charged[key] = one.charged.get(key, 0) + amount
        one.state = "settled" if one.entered or not nothing else "released"
        one.kept = {}

    @rule()
    def expire(self) -> None:
        self.now += timedelta(seconds=60)
        self.gone({hold_id for hold_id, one in self.calls.items() if one.state == "open" and one.until <= self.now})

    def gone(self, wanted: set[str]) -> None:
        assert set(self.ledger.expire()) == wanted
        for hold_id in wanted:
            self.calls[hold_id].state = "suspect"

    def some(self, data: st.DataObject) -> tuple[str, Call]:
        hold_id = data.draw(st.sampled_from(sorted(self.calls)))
        return hold_id, self.calls[hold_id]

    @invariant()
    def adds_up(self) -> None:
        kept = {(one.budget_id, one.period): one.balance for one in self.ledger.accounts()}
        keys = set(kept) | {key for one in self.calls.values() for key in one.claims}
        for key in keys:
            stands = kept.get(key)
            found = (0, 0, 0, 0) if stands is None else (stands.settled, stands.suspect, stands.held, stands.overdraft)
            assert found == (*self.total(key), self.overdraft(key)), key
            if key[0] in self.limits:
                assert sum(found[:3]) <= self.limits[key[0]] + found[3] + self.excess.get(key, 0)


class FileMachine(Machine):
    """The same in a file, where the second door is another owner."""

    def __init__(self) -> None:
        super().__init__()
        self.second = self.opened()

    def opened(self) -> Ledger:
        return SqliteLedger(Path(self.folder.name) / "ledger.db", clock=self.time)

    @rule()
    def crash(self) -> None:
        self.second.close()
        self.second = self.opened()
        self.gone(
            {
                hold_id
                for hold_id, one in self.calls.items()
                if one.state == "open" and (not one.mine or one.until <= self.now)
            }
        )

    @rule()
    def reopen(self) -> None:
        self.ledger.flush()
        assert self.second.accounts() == self.ledger.accounts()
        assert self.second.holds() == self.ledger.holds()
        assert self.ledger.verify() == []


TestInMemory = Machine.TestCase
TestInAFile = FileMachine.TestCase
TestInMemory.settings = settings(max_examples=2000 if LONG else 40, stateful_step_count=40, deadline=None)
TestInAFile.settings = settings(
    max_examples=1000 if LONG else 15,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
