"""Callers that go away while a budget is asked: nothing of theirs stays held, and nobody behind them waits for it."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.config import user_card
from tallystick.core.attribution import Tags
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.claims import spell_of, stretch
from tallystick.metering.leave import Admitted, Denied, Who
from tallystick.metering.leaves import HeldLeave
from tallystick.metering.rating import Call
from tallystick.metering.recording import entry_for
from tallystick.metering.rules import make_budget
from tallystick.wire.facts import request_facts

CATALOG = Catalog.bundled().with_user(
    [user_card("gpt-4o-mini", {"input": Decimal(20), "output": Decimal(20)})]  # $0.04 for 1,000 in and 1,000 out
)
CENT = 10**10


def now():
    return datetime.now(UTC)


def facts(**fields):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 992}], **fields}
    return request_facts("POST", "https://api.openai.com/v1/chat/completions", {}, json.dumps(body).encode())


def budget(name="b", limit="$0.40", **rule):
    return make_budget(name, {"limit": limit, **rule})


def entry(call_id, usage):
    at = now()
    call = Call(model="gpt-4o-mini", at=at, provider="openai", api="openai.chat")
    return entry_for(usage, call, CATALOG, call_id=call_id, recorded_at=at, source="client")


def account(ledger, name="b"):
    return ledger.accounts(name)[0].balance


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    made = MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path / "ledger.db")
    with made:
        yield made
        assert made.verify() == []


@pytest.fixture
def admission(ledger):
    made = BudgetAdmission(ledger, lambda: CATALOG, wait=30.0)
    yield made
    made.close()


def soon(seen: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while not seen() and time.monotonic() < until:
        time.sleep(0.01)
    return seen()


def leave_of(admission):
    call_id = new_call_id()
    return call_id, admission.leave(call_id, facts(max_tokens=1000), Who(), now())


def taught(admission):
    """One settled call, so that the site is known and nobody waits for a first one."""
    call_id, leave = leave_of(admission)
    assert isinstance(leave.ask().result(timeout=30), Admitted)
    leave.settle(entry(call_id, Usage(input=1000, output=1000))).result()


def full(admission):
    """A leave that holds all there is left of ten cents, and one that waits for it."""
    taught(admission)
    _, holding = leave_of(admission)
    assert isinstance(holding.ask().result(timeout=30), Admitted)
    _, waiting = leave_of(admission)
    asked = waiting.ask()
    assert not asked.done()
    return holding, waiting, asked


def test_a_cancelled_ask_leaves_the_line_at_once(ledger, admission):
    ledger.put_budget(budget(limit="$0.09"))
    holding, _, asked = full(admission)
    assert asked.cancel()
    holding.release().result()
    assert soon(lambda: account(ledger).held == 0)
    assert ledger.holds("open") == []
    _, next_one = leave_of(admission)
    assert isinstance(next_one.ask().result(timeout=30), Admitted)
    next_one.release().result()


def test_a_released_ask_is_not_granted_later(ledger, admission):
    ledger.put_budget(budget(limit="$0.09"))
    holding, waiting, _ = full(admission)
    waiting.release().result()
    holding.release().result()
    assert soon(lambda: account(ledger).held == 0)
    assert ledger.holds("open") == []


def test_asks_cancelled_in_the_moment_of_their_grant_hold_nothing(ledger, admission):
    ledger.put_budget(budget(limit="$100"))
    taught(admission)
    kept = []

    def ask(number):
        call_id, leave = leave_of(admission)
        asked = leave.ask()
        if number % 3:
            time.sleep(0.0003 * (number % 7))
        if not asked.cancel():
            kept.append((call_id, leave, asked.result()))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(answer, Admitted) for _, _, answer in kept)
    assert soon(lambda: {hold.hold_id for hold in ledger.holds("open")} == {one[0] for one in kept})
    for _, leave, _ in kept:
        leave.release().result()
    assert account(ledger).held == 0
    # This process does not think that it holds anything, either.
    _, last = leave_of(admission)
    answer = last.ask().result(timeout=30)
    # $0.04 were settled, and this call holds a few cents; sixty calls would hold more than a dollar.
    assert 99 * 100 * CENT < answer.remaining < 100 * 100 * CENT
    last.release().result()


def test_what_was_granted_and_cannot_be_taken_in_is_given_back(ledger, admission, monkeypatch):
    ledger.put_budget(budget(limit="$1"))

    def broken(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(HeldLeave, "_admit", broken)
    _, leave = leave_of(admission)
    answer = leave.ask().result(timeout=30)
    assert isinstance(answer, Denied)
    assert answer.code == "ledger_unavailable"
    assert soon(lambda: [hold.state for hold in ledger.holds()] == ["released"])
    assert account(ledger).held == 0


def test_a_changed_budget_binds_the_next_call_of_the_process(ledger, admission):
    who = Who(tags=Tags({"team": "a"}))

    def answer():
        leave = admission.leave(new_call_id(), facts(max_tokens=1000), who, now())
        found = leave.ask().result(timeout=30)
        leave.release().result()
        return type(found)

    assert answer() is Admitted
    ledger.put_budget(budget(limit="$0.01", scope={"team": "a"}))
    assert answer() is Denied
    ledger.put_budget(budget(limit="$5", scope={"team": "a"}))
    assert answer() is Admitted
    ledger.put_budget(budget("c", limit="$0.01"))
    assert answer() is Denied
    ledger.drop_budget("c")
    assert answer() is Admitted


PERIODS = [Period.parse(text) for text in ("1s", "7s", "61s", "90m", "24h", "day", "hour", "week", "year")]
PERIODS += [
    Period("month", "Europe/Berlin", 31),
    Period("hour", "Australia/Lord_Howe"),
    Period("day", "America/St_Johns"),
]


@pytest.mark.parametrize("period", PERIODS, ids=lambda period: f"{period.unit} {period.tz} {period.length}")
def test_a_spell_is_just_as_long_as_its_account(period):
    tick = timedelta(microseconds=1)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    while at.year == 2026:
        begin, end = spell_of(period, at)
        assert begin <= at < end
        assert stretch(period, begin) == stretch(period, at) == stretch(period, end - tick)
        assert stretch(period, begin - tick) != stretch(period, at) != stretch(period, end)
        at += timedelta(days=3, hours=5, microseconds=700_001)


def test_a_lifetime_has_one_spell():
    begin, end = spell_of(Period("lifetime"), now())
    assert begin.year == 1
    assert end.year == 9999
