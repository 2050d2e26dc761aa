"""Calls under budgets: who is admitted, with how much, and what is left standing afterwards."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.config import user_card
from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.leave import Admitted, Denied, Who
from tallystick.metering.rating import Call
from tallystick.metering.recording import entry_for
from tallystick.metering.rules import make_budget
from tallystick.wire.facts import request_facts

CATALOG = Catalog.bundled().with_user(
    [user_card("gpt-4o-mini", {"input": Decimal(20), "output": Decimal(20)})]  # $0.04 for 1,000 in and 1,000 out
)
CATALOG.find("gpt-4o-mini", at=datetime.now(UTC))
PROMPT = "word " * 992
CENT = 10**10


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    made = MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path / "ledger.db")
    with made:
        yield made
        assert made.verify() == []


@pytest.fixture
def desk(ledger):
    """Makes admissions of the ledger and closes them."""
    made = []

    def make(**options):
        made.append(BudgetAdmission(ledger, lambda: CATALOG, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def facts(prompt=PROMPT, **fields):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], **fields}
    return request_facts("POST", "https://api.openai.com/v1/chat/completions", {}, json.dumps(body).encode())


def budget(name="b", limit="$0.40", **rule):
    return make_budget(name, {"limit": limit, **rule})


def entry(call_id, usage, *, model="gpt-4o-mini", at=None, **fields):
    at = at or datetime.now(UTC)
    made = entry_for(
        usage, Call(model=model, at=at, provider="openai", api="openai.chat"), CATALOG,
        call_id=call_id, recorded_at=at, source="client",
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def now():
    return datetime.now(UTC)


class Outcome:
    def __init__(self):
        self.lock, self.admitted, self.denied = threading.Lock(), [], []


def storm(admission, count, make_facts, usage_of, outcome, hold=0.0):
    """`count` calls at once; each admitted one settles after `hold` seconds."""

    def one(_number):
        call_id, wanted = new_call_id(), make_facts()
        leave = admission.leave(call_id, wanted, Who(), now())
        answer = leave.ask().result(timeout=30)
        with outcome.lock:
            (outcome.admitted if isinstance(answer, Admitted) else outcome.denied).append(answer)
        if isinstance(answer, Admitted):
            threading.Event().wait(hold)
            leave.settle(entry(call_id, usage_of(answer))).result(timeout=30)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(count)))


def account(ledger, name="b"):
    return ledger.accounts(name)[0].balance


def test_of_a_hundred_calls_at_once_exactly_ten_are_admitted(ledger, desk):
    ledger.put_budget(budget())
    outcome = Outcome()
    usage = Usage(input=1000, output=1000)
    storm(desk(wait=10.0), 100, lambda: facts(max_tokens=1000), lambda _: usage, outcome, hold=0.05)
    assert len(outcome.admitted) == 10
    assert account(ledger).settled == 40 * CENT
    assert all("$0.40 spent" in denied.message or "held" in denied.message for denied in outcome.denied)


def test_hidden_input_never_makes_more_than_ten_calls_worth(ledger, desk):
    ledger.put_budget(budget())
    outcome = Outcome()
    usage = Usage(input=1000, output=1000)
    storm(desk(wait=10.0), 100, lambda: facts("word " * 760, max_tokens=1000), lambda _: usage, outcome, hold=0.05)
    assert len(outcome.admitted) == 10
    assert account(ledger).spent <= 40 * CENT


def test_without_a_maximum_history_gives_the_bound(ledger, desk):
    ledger.put_budget(budget(limit="$100"))
    admission = desk(wait=10.0)
    usage = Usage(input=1000, output=1000)
    for _ in range(20):
        call_id = new_call_id()
        leave = admission.leave(call_id, facts(), Who(), now())
        assert isinstance(leave.ask().result(30), Admitted)
        leave.settle(entry(call_id, usage)).result(30)
    ledger.put_budget(budget(limit="$1.20"))  # $0.80 is spent
    outcome = Outcome()
    storm(admission, 100, facts, lambda _: usage, outcome, hold=0.05)
    assert 9 <= len(outcome.admitted) <= 10
    assert account(ledger).spent <= 120 * CENT


def one(admission, made=None, *, who=None, at=None):
    """A leave and its answer."""
    call_id = new_call_id()
    leave = admission.leave(call_id, made or facts(max_tokens=1000), who or Who(), at or now())
    return call_id, leave, leave.ask().result(timeout=30)


def spend(admission, usage=None, made=None, **options):
    """One whole call; its answer."""
    call_id, leave, answer = one(admission, made, **options)
    if isinstance(answer, Admitted):
        leave.settle(entry(call_id, usage or Usage(input=1000, output=1000))).result(timeout=30)
    return answer


def test_a_call_that_no_budget_concerns_is_only_entered(ledger, desk):
    ledger.put_budget(budget(scope={"team": "a"}))
    admission = desk()
    call_id, leave, answer = one(admission, who=Who(tags=Tags(team="b")))
    assert answer == Admitted()
    assert leave.covered is None
    assert leave.grow(5).result() == 5
    leave.settle(entry(call_id, Usage(input=1))).result(timeout=30)
    leave.release().result()
    assert [found.call_id for found in ledger.read()] == [call_id]
    assert ledger.holds() == []


def test_a_soft_and_a_paused_budget_count_and_never_refuse(ledger, desk):
    ledger.put_budget(budget("soft", "$0.01", hard=False))
    ledger.put_budget(msgspec.structs.replace(budget("paused", "$0.01"), paused=True))
    admission = desk()
    for _ in range(3):
        assert spend(admission) == Admitted()
    assert account(ledger, "soft").settled == account(ledger, "paused").settled == 12 * CENT
    _, leave, _ = one(admission)
    assert leave.grow(5).result() == 5
    leave.release().result()


def test_several_budgets_at_once_and_one_account_for_each_user(ledger, desk):
    ledger.put_budget(budget("everybody", "$1"))
    ledger.put_budget(budget("each", "$0.10", each=["user"]))
    ledger.put_budget(budget("tokens", "1M tokens", scope={"model": "gpt-4o-mini", "provider": "openai"}))
    ledger.put_budget(budget("calls", "100 calls", scope={"tag:desk": "7"}))
    admission = desk(wait=0.0)
    ada, nobody = Who(tags=Tags(user="ada", desk=7)), Who()
    assert isinstance(spend(admission, who=ada), Admitted)
    assert isinstance(spend(admission, who=ada), Admitted)
    denied = spend(admission, who=ada)
    assert denied.refused.budget_id == "each"
    assert denied.refused.value == "user=ada"
    assert denied.message.startswith("Budget each (user=ada): $0.08 spent and $0.00 held of $0.10; this call may cost")
    assert isinstance(spend(admission, who=nobody), Admitted)
    found = {(one.budget_id, one.value): one.balance.settled for one in ledger.accounts()}
    assert found == {
        ("everybody", ""): 12 * CENT,
        ("each", "user=ada"): 8 * CENT,
        ("each", "user=(absent)"): 4 * CENT,
        ("tokens", ""): 6000,
        ("calls", ""): 2,
    }


def test_a_refusal_names_spent_held_limit_and_reset(ledger, desk):
    ledger.put_budget(budget(limit="$0.10/day"))
    admission = desk(wait=0.0)
    spend(admission)
    _, leave, _ = one(admission)
    at = datetime.now(UTC)
    _, _, denied = one(admission, at=at)
    tomorrow = (at + timedelta(days=1)).date()
    assert "$0.04 spent and $0.04" in denied.message
    assert "held of $0.10; this call may cost up to $0.04" in denied.message
    assert denied.message.endswith(f"It resets at {tomorrow} 00:00 UTC.")
    assert denied.code == "budget_exceeded"
    assert denied.refused.resets_at == datetime.combine(tomorrow, datetime.min.time(), UTC)
    leave.release().result(timeout=30)
    assert isinstance(spend(admission), Admitted)


def test_a_call_belongs_to_the_period_of_its_authorisation(ledger, desk):
    ledger.put_budget(budget(limit="$1/day", tz="Europe/Berlin"))
    admission = desk()
    late = datetime(2026, 11, 21, 22, 59, tzinfo=UTC)
    call_id, leave, _ = one(admission, at=late)
    leave.settle(entry(call_id, Usage(input=1000), at=late + timedelta(minutes=5))).result(timeout=30)
    assert [one.period for one in ledger.accounts("b")] == ["day@Europe/Berlin 2026-11-21"]


def test_a_rolling_budget_says_when_there_is_room_again(ledger, desk):
    ledger.put_budget(budget(limit="2 calls/1m"))
    admission = desk(wait=0.0)
    at = now()
    assert isinstance(spend(admission, at=at), Admitted)
    assert isinstance(spend(admission, at=at + timedelta(seconds=1)), Admitted)
    denied = spend(admission, at=at + timedelta(seconds=2))
    assert 50 <= denied.retry_after <= 62
    assert denied.message.startswith("Budget b: 2 calls spent and 0 calls held of 2 calls; this call may take up to 1")
    assert isinstance(spend(admission, at=at + timedelta(seconds=63)), Admitted)


def test_what_remains_is_told_beside_this_call(ledger, desk):
    ledger.put_budget(budget(limit="$1"))
    ledger.put_budget(budget("wide", "$100"))
    admission = desk(monotonic=lambda: 1000.0)  # it looks only once
    assert one(admission)[2].remaining == 96 * CENT
    spend(admission)
    answer = spend(admission)
    assert answer.budget.budget_id == "b"
    assert answer.remaining == 88 * CENT


def test_tokens_per_minute(ledger, desk):
    ledger.put_budget(budget(limit="5k tokens/1m"))
    admission = desk(wait=0.0)
    assert [type(spend(admission)) for _ in range(3)] == [Admitted, Admitted, Denied]


def test_a_tight_budget_caps_the_answer_and_refuses_what_is_of_no_use(ledger, desk):
    ledger.put_budget(budget())
    admission = desk(wait=0.0)
    for _ in range(9):
        spend(admission)
    call_id, leave, answer = one(admission, facts(max_tokens=4000))  # $0.04 is left: 1,000 tokens of answer
    assert answer.capped
    assert 900 <= answer.max_output <= 1000
    assert leave.covered == answer.max_output
    leave.settle(entry(call_id, Usage(input=1000, output=900))).result(timeout=30)
    denied = spend(admission, made=facts(max_tokens=4000))
    assert denied.code == "budget_exceeded"


def test_an_answer_in_one_piece_without_maximum_gets_one(ledger, desk):
    ledger.put_budget(budget(limit="$0.10"))
    _, leave, answer = one(desk(wait=0.0), facts())
    assert answer.max_output == leave.covered == 4000  # capped to what there is
    assert answer.capped
    ledger.put_budget(budget("b", "$1000"))
    _, leave, answer = one(desk(wait=0.0), facts())
    assert answer.max_output == 16384
    assert not answer.capped
    assert answer.budget.budget_id == "b"
    assert 999 * 10**12 < answer.remaining < 1000 * 10**12


def test_a_stream_without_maximum_begins_small_and_grows(ledger, desk):
    ledger.put_budget(budget(limit="$10"))
    admission = desk()
    spend(admission, Usage(input=1000, output=100))
    call_id, leave, answer = one(admission, facts(stream=True))
    assert answer.max_output is None
    assert leave.covered == 1024
    assert leave.grow(500).result(timeout=30) == 1024
    assert leave.grow(5000).result(timeout=30) == 5000
    assert leave.covered == 5000
    leave.settle(entry(call_id, Usage(input=1000, output=5000))).result(timeout=30)
    assert account(ledger).held == 0
    assert account(ledger).overdraft == 0


def test_hidden_reasoning_is_held_beside_what_the_stream_shows(ledger, desk):
    ledger.put_budget(budget(limit="$10"))
    admission = desk()
    spend(admission, Usage(input=1000, output=100, reasoning=900))
    _, leave, _ = one(admission, facts(stream=True))
    assert leave.covered == 1024
    assert ledger.holds("open")[0].output == 1924
    assert leave.grow(3000).result(timeout=30) == 3000
    assert ledger.holds("open")[0].output == 3900


def test_an_unpriced_model_is_refused_with_the_command_that_prices_it(ledger, desk):
    ledger.put_budget(budget("money", "$5"))
    ledger.put_budget(budget("tokens", "1M tokens"))
    made = msgspec.structs.replace(facts(max_tokens=5), model="nobodys-model")
    denied = spend(desk(), made=made)
    assert denied.code == "unpriced_model"
    assert "tally rates set nobodys-model" in denied.message
    ledger.drop_budget("money")
    assert isinstance(spend(desk(), made=made), Admitted)


def test_tools_with_a_fee_are_part_of_the_bound(ledger, desk):
    ledger.put_budget(budget(limit="$1"))
    admission = desk()
    catalog = Catalog.bundled()
    admission.desk.catalog = lambda: catalog
    small, searching = (
        facts("hi", max_tokens=1),
        facts("hi", max_tokens=1, tools=[{"type": "web_search", "max_uses": 3}]),
    )
    held = []
    for made in (small, searching):
        one(admission, made)
        held.append(sum(charge.amount for charge in ledger.holds("open")[-1].charges))
    assert held[1] - held[0] >= 3 * CENT


def test_the_requested_tier_prices_the_bound(ledger, desk):
    ledger.put_budget(budget(limit="$100"))
    admission = desk()
    catalog = Catalog.bundled()
    admission.desk.catalog = lambda: catalog
    held = []
    for tier in ("default", "priority"):
        made = msgspec.structs.replace(facts("hi", max_tokens=1000, service_tier=tier), model="gpt-4o")
        one(admission, made)
        held.append(sum(charge.amount for charge in ledger.holds("open")[-1].charges))
    assert held[1] > 1.5 * held[0]


def test_budgets_may_change_while_calls_are_made(ledger, desk):
    ledger.put_budget(budget(limit="$5"))
    admission = desk(wait=0.0, monotonic=lambda: 1000.0)  # its own look comes only once
    assert isinstance(spend(admission), Admitted)
    ledger.put_budget(budget(limit="$0.05"))
    assert isinstance(spend(admission), Denied)
    ledger.drop_budget("b")
    ledger.put_budget(budget("of-ada", "$0.01", scope={"user": "ada"}))
    assert isinstance(spend(admission, who=Who(tags=Tags(user="ada"))), Denied)  # found on the second look
    assert spend(admission) == Admitted()


def test_a_closed_ledger_refuses_or_lets_go_as_the_budget_says(tmp_path):
    for failure, expected in (("closed", Denied), ("open", Admitted)):
        ledger = SqliteLedger(tmp_path / f"{failure}.db")
        ledger.put_budget(budget(failure=failure))
        admission = BudgetAdmission(ledger, lambda: CATALOG)
        spend(admission)
        ledger.close()
        answer = admission.leave("late", facts(max_tokens=5), Who(), now()).ask().result(timeout=30)
        assert isinstance(answer, expected)
        assert expected is Admitted or answer.code == "ledger_unavailable"
        assert admission.faults > 0
        admission.close()


def test_budgets_of_the_configuration_stand_in_for_a_ledger_that_was_never_readable(tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.close()
    admission = BudgetAdmission(ledger, lambda: CATALOG, budgets=[budget()])
    answer = admission.leave("late", facts(max_tokens=5), Who(), now()).ask().result(timeout=30)
    assert answer.code == "ledger_unavailable"
    admission.close()


def test_a_new_process_knows_what_an_old_one_has_learned(ledger):
    ledger.put_budget(budget(limit="$100"))
    first = BudgetAdmission(ledger, lambda: CATALOG)
    for _ in range(20):
        spend(first, Usage(input=1231, output=300), made=facts())
    first.close()
    second = BudgetAdmission(ledger, lambda: CATALOG)
    one(second, facts(stream=True))
    hold = ledger.holds("open")[0]
    assert 300 <= hold.output <= 330
    tokens = (sum(charge.amount for charge in hold.charges) - hold.output * 20 * 10**6) // (20 * 10**6)
    assert tokens >= 1231
    second.close()
    assert PROMPT[:20] not in "".join(ledger.states("calibration").values())


def test_a_lower_bound_keeps_the_rest_of_its_hold(ledger, desk):
    ledger.put_budget(budget(limit="$1"))
    call_id, leave, _ = one(desk(), facts(max_tokens=1000))
    leave.settle(entry(call_id, Usage(input=500, output=10), quality="lower_bound", status="cancelled")).result(
        timeout=30
    )
    stands = account(ledger)
    assert stands.settled == 510 * 20 * 10**6
    assert stands.spent >= 39 * CENT / 10
    assert ledger.holds("suspect")[0].hold_id == call_id


def test_a_run_has_a_budget_until_it_ends(ledger, desk):
    admission = desk(wait=0.0)
    inside, nested = Who(run_id="r1"), Who(run_id="r2", parent_run="r1")
    with admission.run_budget("r1", Money.usd("0.10")):
        assert isinstance(spend(admission, who=inside), Admitted)
        assert isinstance(spend(admission, who=nested), Admitted)
        denied = spend(admission, who=inside)
        assert denied.refused.budget_id == "run.r1"
    assert spend(admission, who=inside) == Admitted()
    assert len(list(ledger.read())) == 3


def test_pictures_are_bounded_by_more_than_their_bytes(ledger, desk):
    ledger.put_budget(budget(limit="1G tokens"))
    picture = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    body = {"model": "gpt-4o-mini", "max_tokens": 1, "messages": [{"role": "user", "content": picture}]}
    made = request_facts("POST", "https://api.openai.com/v1/chat/completions", {}, json.dumps(body).encode())
    one(desk(), made)
    assert ledger.holds("open")[0].charges[0].amount > len(made.body)
