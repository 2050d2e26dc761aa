"""What every ledger does with holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hold_samples import account, ask, budget, call, charge, claim, granted, settlement
from ledger_samples import NOW, Clock, correction, cost

from tallystick.errors import ConflictError, InputError, LedgerUnavailable
from tallystick.ledger.hold import Ask, Granted, Refused, Seed, Stale
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    one: Ledger = MemoryLedger("UTC", Clock())
    if request.param == "sqlite":
        one = SqliteLedger(tmp_path / "ledger.db", clock=Clock())
    if request.param == "postgres":
        from tallystick.ledger.postgres import PostgresLedger

        one = PostgresLedger(request.getfixturevalue("postgres_url"), clock=Clock())
    with one:
        yield one
        assert one.verify() == []


@pytest.fixture
def limited(ledger: Ledger) -> Ledger:
    """A ledger with a budget `b` of 100."""
    ledger.put_budget(budget())
    return ledger


def refused(ledger: Ledger, wanted: Ask, wait: float = 0.0) -> Refused:
    found = ledger.authorise(wanted, wait=wait).result(20)
    assert isinstance(found, Refused), found
    return found


def test_a_hold_is_set_aside_and_settled(limited: Ledger) -> None:
    assert granted(limited, ask("c1", claim(30))).output == 0
    assert (account(limited).held, account(limited).settled, account(limited).limit) == (30, 0, 100)
    (hold,) = limited.holds()
    assert (hold.hold_id, hold.state, hold.charges) == ("c1", "open", (charge(30),))
    receipt = limited.settle(call("c1", 12), settlement(charge(12)), durable=True).result(20)
    assert receipt.written == 1
    assert (account(limited).held, account(limited).settled, account(limited).overdraft) == (0, 12, 0)
    (hold,) = limited.holds("settled")
    assert (hold.charges, hold.settled) == ((), (charge(12),))
    assert [one.call_id for one in limited.read()] == ["c1"]


def test_a_refusal_gives_the_figures_and_moves_nothing(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(30)))
    limited.settle(call("c1"), settlement(charge(25))).result(20)
    granted(limited, ask("c2", claim(60)))
    before = limited.accounts()
    found = refused(limited, ask("c3", claim(20)))
    assert (found.spent, found.held, found.limit, found.asked) == (25, 60, 100, 20)
    assert refused(limited, ask("c4", claim(80)), wait=60).asked == 80
    assert limited.accounts() == before
    assert [one.hold_id for one in limited.holds()] == ["c1", "c2"]


def test_all_accounts_or_none(limited: Ledger) -> None:
    limited.put_budget(budget("small", 5))
    found = refused(limited, ask("c1", claim(10), claim(10, budget_id="small"), version=2))
    assert found.budget_id == "small"
    assert account(limited).held == 0
    granted(limited, ask("c2", claim(10), claim(5, budget_id="small"), version=2))
    assert (account(limited).held, account(limited, "small").held) == (10, 5)


def test_one_hundred_asks_at_once_for_a_budget_of_ten_calls(ledger: Ledger) -> None:
    ledger.put_budget(budget(limit=400_000_000_000))
    barrier = threading.Barrier(20)
    outcomes: list[object] = []

    def calls(number: int) -> None:
        barrier.wait(20)
        outcomes.extend(ledger.authorise(ask(f"c{number}-{one}", claim(40_000_000_000))).result(20) for one in range(5))

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in outcomes if isinstance(one, Granted)]) == 10
    assert account(ledger).held == 400_000_000_000


def test_amounts_beyond_64_bits(ledger: Ledger) -> None:
    ledger.put_budget(budget(limit=10**30))
    granted(ledger, ask("c1", claim(10**29, per_output=10**20), output=7))
    assert account(ledger).held == 10**29 + 7 * 10**20
    ledger.settle(call("c1"), settlement(charge(10**29 + 1))).result(20)
    assert (account(ledger).held, account(ledger).settled) == (0, 10**29 + 1)


def test_a_capped_call_covers_what_is_free(limited: Ledger) -> None:
    found = granted(limited, ask("c1", claim(10, 2), output=1000, least=20))
    assert found.output == 45
    assert account(limited).held == 100


def test_a_hold_grows_as_far_as_there_is_room_and_never_shrinks(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(10, 1), output=20))
    granted(limited, ask("c2", claim(40)))
    assert limited.extend("c1", 40).result(20) == 40
    assert limited.extend("c1", 30).result(20) == 40
    assert limited.extend("c1", 400).result(20) == 50
    assert account(limited).held == 100
    assert limited.holds()[0].charges == (charge(60),)


def test_a_hold_that_ended_or_never_was_cannot_grow(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(10, 1)))
    limited.release("c1").result(20)
    for hold_id in ("c1", "never"):
        with pytest.raises(InputError, match="cannot grow"):
            limited.extend(hold_id, 5).result(20)
    granted(limited, ask("c2", claim(10, 1)))
    with pytest.raises(InputError, match="cannot cover"):
        limited.extend("c2", -1).result(20)


def test_release_gives_back_once(limited: Ledger) -> None:
    granted(limited, ask("c1"))
    for _ in range(2):
        limited.release("c1").result(20)
        limited.release("unknown").result(20)
    assert (account(limited).held, limited.holds()[0].state) == (0, "released")
    granted(limited, ask("c2"))
    limited.settle(call("c2"), settlement(charge(5))).result(20)
    with pytest.raises(ConflictError, match="settled call"):
        limited.release("c2").result(20)


def test_the_same_ask_again_is_the_same_hold(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(30)))
    assert granted(limited, ask("c1", claim(30))).hold_id == "c1"
    assert account(limited).held == 30
    with pytest.raises(ConflictError, match="another request"):
        limited.authorise(ask("c1", claim(30), payload="q")).result(20)
    limited.release("c1").result(20)
    with pytest.raises(ConflictError, match="released"):
        limited.authorise(ask("c1", claim(30))).result(20)
    assert account(limited).held == 0


def test_the_same_settlement_again_changes_nothing_and_another_is_a_conflict(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(30)))
    limited.settle(call("c1"), settlement(charge(12))).result(20)
    again = limited.settle(call("c1"), settlement(charge(12))).result(20)
    assert (again.written, again.known) == (0, 1)
    for other, charges in ((call("c1"), charge(13)), (call("c1", model="other"), charge(12))):
        with pytest.raises(ConflictError):
            limited.settle(other, settlement(charges)).result(20)
    assert account(limited).settled == 12


def test_a_charge_above_its_hold_is_overdraft(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(30)))
    limited.settle(call("c1"), settlement(charge(150))).result(20)
    assert (account(limited).settled, account(limited).overdraft) == (150, 120)
    assert refused(limited, ask("c2", claim(1))).spent == 150


def test_a_call_without_a_hold_is_charged(limited: Ledger) -> None:
    limited.settle(call("c1"), settlement(charge(7), charge(9, "soft"))).result(20)
    assert (account(limited).settled, account(limited).overdraft) == (7, 0)
    assert account(limited, "soft").settled == 9
    assert limited.holds() == []


def test_a_lower_bound_keeps_the_rest_until_somebody_knows(limited: Ledger) -> None:
    for number in (1, 2):
        granted(limited, ask(f"c{number}", claim(30)))
        limited.settle(call(f"c{number}"), settlement(charge(12), keep=True)).result(20)
    assert (account(limited).settled, account(limited).suspect, account(limited).held) == (24, 36, 0)
    limited.resolve("c1", None)
    limited.resolve("c2", (charge(20),))
    assert (account(limited).settled, account(limited).suspect, account(limited).overdraft) == (44, 0, 2)
    with pytest.raises(InputError, match="Not suspect"):
        limited.resolve("c1", None)


def test_an_overdue_hold_is_suspect_until_it_is_settled_or_resolved(limited: Ledger) -> None:
    for number in range(1, 5):
        granted(limited, ask(f"c{number}", claim(20, 1), expires_at=NOW))
    assert sorted(limited.expire()) == ["c1", "c2", "c3", "c4"]
    assert limited.expire() == []
    assert (account(limited).suspect, account(limited).held) == (80, 0)
    limited.settle(call("c1"), settlement(charge(15))).result(20)
    limited.resolve("c2", None)
    limited.resolve("c3", (charge(1),))
    assert limited.extend("c4", 3).result(20) == 3
    assert (account(limited).settled, account(limited).suspect, account(limited).held) == (16, 0, 23)
    assert {one.hold_id: one.state for one in limited.holds()} == {
        "c1": "settled", "c2": "released", "c3": "settled", "c4": "open",
    }  # fmt: skip


def test_a_call_that_settles_after_its_hold_was_given_back_is_overdraft(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(20), expires_at=NOW))
    granted(limited, ask("c2", claim(20), expires_at=NOW))
    limited.expire()
    limited.resolve("c1", (charge(5),))
    limited.resolve("c2", None)
    limited.settle(call("c1"), settlement(charge(15))).result(20)
    limited.settle(call("c2"), settlement(charge(15))).result(20)
    assert (account(limited).settled, account(limited).overdraft) == (30, 25)


def test_corrections_move_the_accounts_that_count_money(limited: Ledger) -> None:
    limited.put_budget(budget("calls", 5, unit="calls"))
    granted(limited, ask("c1", claim(30), claim(1, budget_id="calls"), version=2))
    limited.settle(call("c1", 12), settlement(charge(12), charge(1, "calls"))).result(20)
    limited.append([correction("c1", "fix-1", cost=cost(20).to_json())])
    assert (account(limited).settled, account(limited, "calls").settled) == (20, 1)
    assert account(limited).overdraft == 8
    limited.append(
        [correction("c1", "fix-1", cost=cost(20).to_json()), correction("c1", "fix-2", cost=cost(3).to_json())]
    )
    assert (account(limited).settled, account(limited).overdraft) == (3, 0)


def test_waiting_for_a_hold_in_flight(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(90)))
    waiting = limited.authorise(ask("c2", claim(50)), wait=20)
    limited.flush()
    assert not waiting.done()
    limited.settle(call("c1"), settlement(charge(10))).result(20)
    found = waiting.result(20)
    assert isinstance(found, Granted)
    assert found.waited_us > 0


def test_a_later_ask_does_not_overtake(limited: Ledger) -> None:
    limited.put_budget(budget("other"))
    granted(limited, ask("c1", claim(90), version=2))
    first = limited.authorise(ask("c2", claim(80), version=2), wait=20)
    behind = refused(limited, ask("c3", claim(5), version=2))
    assert (behind.held, behind.queued) == (90, True)
    assert not refused(limited, ask("c6", claim(20), version=2)).queued
    second = limited.authorise(ask("c4", claim(5), version=2), wait=20)
    granted(limited, ask("c5", claim(5, budget_id="other"), version=2))
    assert not first.done()
    assert not second.done()
    limited.release("c1").result(20)
    assert isinstance(first.result(20), Granted)
    assert isinstance(second.result(20), Granted)


def test_what_nobody_waits_for_is_written_all_the_same(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(90)))
    assert limited.settle(call("c1", 5), settlement(charge(5)), later=True).result(20).written == 1
    granted(limited, ask("c2", claim(90)))
    limited.settle(call("c2", 5), settlement(charge(5)), later=True)
    limited.flush()
    assert (account(limited).held, account(limited).settled) == (0, 10)
    granted(limited, ask("c3", claim(90)))
    limited.settle(call("c3", 5), settlement(charge(5)), later=True)
    # Who asks next sees what that gives back, without waiting for it.
    granted(limited, ask("c4", claim(85)))
    waiting = limited.authorise(ask("c5", claim(85)), wait=20)
    limited.settle(call("c4", 0), settlement(charge(0)), later=True)
    assert isinstance(waiting.result(20), Granted)
    assert [one.call_id for one in limited.read()] == ["c1", "c2", "c3", "c4"]


def test_an_ask_with_ample_room_need_not_see_what_was_just_given_back(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(90)))
    limited.settle(call("c1", 5), settlement(charge(5)), later=True)
    first = limited.authorise(ask("c2", claim(5)), ample=True).result(20)
    assert first == Granted(hold_id="c2", output=0)
    again = limited.authorise(ask("c3", claim(80)), ample=True).result(20)
    assert isinstance(again, Refused | Granted)
    granted(limited, ask("c3", claim(80)))
    assert (account(limited).held, account(limited).settled) == (85, 5)


def test_waiting_ends_with_a_refusal_in_true_figures(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(90)))
    found = refused(limited, ask("c2", claim(50)), wait=0.05)
    assert (found.spent, found.held, found.asked) == (0, 90, 50)
    assert account(limited).held == 90
    granted(limited, ask("c3", claim(10)))


def test_release_withdraws_an_ask_that_waits(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(90)))
    waiting = limited.authorise(ask("c2", claim(50)), wait=60)
    behind = limited.authorise(ask("c3", claim(10)), wait=60)
    limited.release("c2").result(20)
    assert isinstance(waiting.result(20), Refused)
    assert isinstance(behind.result(20), Granted)
    limited.release("c1").result(20)
    assert account(limited).held == 10


def test_budgets_have_a_version_and_old_claims_are_noticed(limited: Ledger) -> None:
    assert (limited.budgets().version, limited.budgets().budgets) == (1, (budget(),))
    waiting_for = granted(limited, ask("c1", claim(100)))
    waiting = limited.authorise(ask("c2"), wait=60)
    raised = budget(limit=200, raised_by=5, raised_until=NOW + timedelta(days=1), each=("user",), alerts=(50, 90))
    assert limited.put_budget(raised).version == 2
    assert waiting.result(20) == Stale(2)
    assert limited.budgets().budgets == (raised,)
    assert limited.authorise(ask("c2")).result(20) == Stale(2)
    granted(limited, ask("c2", claim(105), version=2))
    assert (account(limited).held, account(limited).limit, waiting_for.hold_id) == (205, 205, "c1")


def test_a_dropped_paused_or_soft_budget_limits_nothing_and_goes_on_counting(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(90)))
    assert limited.drop_budget("b").budgets == ()
    with pytest.raises(InputError, match="no budget 'b'"):
        limited.drop_budget("b")
    granted(limited, ask("c2", claim(90), version=2))
    assert (account(limited).held, account(limited).limit) == (180, None)
    limited.put_budget(budget(paused=True))
    granted(limited, ask("c3", claim(90), version=3))
    limited.put_budget(budget(hard=False))
    granted(limited, ask("c4", claim(90), version=4))
    assert (account(limited).held, account(limited).limit) == (360, 100)
    assert limited.extend("c4", 5).result(20) == 5
    with pytest.raises(InputError, match="another name"):
        limited.put_budget(budget(unit="calls"))


def test_seeds_are_what_new_accounts_begin_with(ledger: Ledger) -> None:
    seeds = (Seed(value="", period="2026-11", settled=60), Seed(value="", period="2026-10", settled=9))
    ledger.put_budget(budget(), seeds)
    assert refused(ledger, ask("c1", claim(50))).spent == 60
    granted(ledger, ask("c2", claim(40)))
    ledger.put_budget(budget(limit=90), seeds)
    assert (account(ledger).settled, account(ledger, period="2026-10").settled) == (60, 9)


def test_a_rolling_budget_adds_up_its_window(limited: Ledger) -> None:
    slots = [claim(30, period=f"t{number}", since="t1" if number < 4 else "t2") for number in (1, 2, 3, 4)]
    for number in (0, 1, 2):
        granted(limited, ask(f"c{number}", slots[number]))
    found = refused(limited, ask("c3", slots[2]))
    assert (found.held, found.limit) == (90, 100)
    granted(limited, ask("c4", slots[3]))
    assert account(limited, period="t4").held == 30


def test_nobody_else_is_capped_beside_an_unlearned_call(limited: Ledger) -> None:
    granted(limited, ask("c1", claim(50), unlearned=True))
    wide = claim(10, 1)
    waiting = limited.authorise(ask("c2", wide, output=80, least=10), wait=20)
    assert not waiting.done()
    limited.settle(call("c1"), settlement(charge(60))).result(20)
    found = waiting.result(20)
    assert isinstance(found, Granted)
    assert found.output == 30


@pytest.mark.parametrize(
    "wanted",
    [
        ask("c1", claim(-1)),
        ask("c1", claim(), claim()),
        ask("c1", output=1, least=2),
        ask(""),
        ask("c1", claim(10**40)),
    ],
)
def test_an_ask_that_makes_no_sense(limited: Ledger, wanted: Ask) -> None:
    with pytest.raises(InputError, match="makes no sense"):
        limited.authorise(wanted).result(20)
    for charges in ((charge(-1),), (charge(1), charge(1))):
        with pytest.raises(InputError, match="Charges are"):
            limited.settle(call("c1"), settlement(*charges)).result(20)
    assert (limited.accounts(), list(limited.read())) == ([], [])


def test_a_closed_ledger_holds_nothing(limited: Ledger, tmp_path: Path) -> None:
    granted(limited, ask("c1", claim(90)))
    assert len(limited.holds("open", "b")) == 1
    assert limited.holds("open", "other") == limited.holds("suspect") == []
    with SqliteLedger(tmp_path / "other.db") as other:
        other.put_budget(budget())
        granted(other, ask("c1", claim(90)))
        waiting = other.authorise(ask("c2", claim(90)), wait=60)
    with pytest.raises(LedgerUnavailable, match="closed"):
        waiting.result(20)
    with pytest.raises(LedgerUnavailable, match="closed"):
        other.authorise(ask("c3"))


@pytest.mark.parametrize("odd", ['say "NULL"', "back\\slash\\", "{a,b}", "line\nbreak\ttab", "null", "grüße", " "])
def test_ids_and_payloads_are_any_text(ledger: Ledger, odd: str) -> None:
    ledger.put_budget(budget(odd, 100))
    wanted = claim(10, budget_id=odd, value=odd, period=odd)
    granted(ledger, ask(odd, wanted, payload=odd))
    granted(ledger, ask("c2", wanted, payload=odd))
    assert [hold.hold_id for hold in ledger.holds("open", odd)] == [odd, "c2"]
    assert ledger.extend(odd, 5).result(20) == 5
    ledger.release(odd).result(20)
    ledger.settle(call("c2", 7), settlement(charge(7, odd, odd, odd))).result(20)
    assert account(ledger, odd, odd, odd).settled == 7
    assert account(ledger, odd, odd, odd).held == 0
    with pytest.raises(ConflictError):
        ledger.authorise(ask(odd, wanted, payload=odd)).result(20)


def test_a_crowd_of_holds_is_given_back_grown_and_settled_at_once(ledger: Ledger) -> None:
    ledger.put_budget(budget("b", 10**6))
    asked = [ledger.authorise(ask(f"c{number}", claim(10, 1), output=5)) for number in range(300)]
    assert all(isinstance(one.result(20), Granted) for one in asked)
    for number in range(300):
        if number % 3 == 0:
            ledger.release(f"c{number}")
        elif number % 3 == 1:
            ledger.settle(call(f"c{number}", 7), settlement(charge(7)))
        else:
            ledger.extend(f"c{number}", 8)
            ledger.release(f"c{number}")
    ledger.flush()
    stands = account(ledger)
    assert (stands.settled, stands.held, stands.overdraft) == (700, 0, 0)
    assert len(ledger.holds("released")) == 200
    assert {hold.output for hold in ledger.holds("released")} == {5, 8}
    assert len(ledger.holds("settled")) == 100
