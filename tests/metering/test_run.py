"""Runs: what belongs to which, what they add up to, and that nothing crosses over."""

import asyncio
import json
import threading

import pytest

import tallystick
from tallystick.core.money import Money
from tallystick.defaults import catalog
from tallystick.errors import InputError
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.meter import Meter

URL = "https://api.openai.com/v1/chat/completions"
REQUEST = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


def answer(number):
    usage = {"prompt_tokens": 100, "completion_tokens": number, "total_tokens": 100 + number}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    return json.dumps({"id": f"c-{number}", "model": "gpt-4o", "choices": [choice], "usage": usage}).encode()


def one_call(meter, number=10, body=None):
    call = meter.call("POST", URL, {"content-type": "application/json"}, json.dumps(body or REQUEST).encode())
    verdict = call.ask().result()
    if hasattr(verdict, "code"):
        return call.refusal(verdict)
    call.outgoing()
    call.answered(200, {"content-type": "application/json"})
    call.feed(answer(number))
    call.close()
    call.settled.result()
    return call


@pytest.fixture
def ledger():
    with MemoryLedger() as held:
        yield held


@pytest.fixture
def meter(ledger):
    return Meter(ledger, catalog)


def test_a_run_adds_up_and_its_parent_too(ledger, meter):
    with tallystick.run("outer", user="ada", team="a") as outer:
        one_call(meter, 10)
        with tallystick.run("inner", team="b") as inner, inner.step("think"):
            one_call(meter, 20)
        one_call(meter, 30)
    one_call(meter, 40)
    first, second, third, last = ledger.read()
    assert dict(first.tags) == {"agent": "outer", "user": "ada", "team": "a"}
    assert dict(second.tags) == {"agent": "inner", "user": "ada", "team": "b"}
    assert [entry.run_id for entry in (first, second, third, last)] == [outer.run_id, inner.run_id, outer.run_id, None]
    assert [entry.parent_run for entry in (first, second, third)] == [None, outer.run_id, None]
    assert [entry.step for entry in (first, second, third)] == [None, "think", None]
    assert (outer.calls, inner.calls) == (3, 1)
    assert outer.cost == first.amount + second.amount + third.amount
    assert inner.cost == second.amount
    assert dict(outer.usage) == {"input": 300, "output": 60}
    assert str(outer).startswith(f"outer: {outer.cost}, 3 calls")
    assert (outer.gaps, outer.in_flight) == ("", 0)


def test_a_run_says_what_its_cost_leaves_out(meter):
    with tallystick.run("odd") as run:
        one_call(meter, 10)
        known = run.cost
        one_call(meter, 10, {**REQUEST, "model": "no-such-model"})
        call = meter.call("POST", URL, {}, json.dumps(REQUEST).encode())
        call.ask()
        assert run.in_flight == 1
    # The response names a known model, so both have a price; a call in flight is named.
    assert run.cost == known * 2
    assert run.gaps == "1 call in flight"
    call.answered(200, {"content-type": "application/json"})
    call.close("error")
    assert (run.cost, run.known, run.unpriced) == (None, known * 2, 1)
    assert run.gaps == "1 call without a price"
    assert str(run) == f"odd: at least {known * 2}, 3 calls (1 call without a price)"


def test_tags_of_a_call_block_and_their_end(ledger, meter):
    with tallystick.call(feature="search"):
        one_call(meter)
        with tallystick.call(feature="rank", user="ada"):
            one_call(meter)
    one_call(meter)
    assert [dict(entry.tags) for entry in ledger.read()] == [
        {"feature": "search"}, {"feature": "rank", "user": "ada"}, {},
    ]  # fmt: skip


def test_threads_and_tasks_never_see_each_others_tags(ledger, meter):
    def worker(number):
        with tallystick.run(f"thread-{number}", number=str(number)) as run:
            for _ in range(5):
                one_call(meter, number + 1)
            assert run.calls == 5

    async def task(number):
        async with tallystick.run(f"task-{number}", number=str(number)) as run:
            for _ in range(5):
                call = meter.call("POST", URL, {}, json.dumps(REQUEST).encode())
                call.ask()
                await asyncio.sleep(0)
                call.answered(200, {"content-type": "application/json"})
                call.feed(answer(number + 1))
                await asyncio.sleep(0)
                call.close()
            assert run.calls == 5

    async def tasks():
        await asyncio.gather(*(task(number) for number in range(100, 200)))

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    entries = list(ledger.read())
    assert len(entries) == 1000
    for entry in entries:
        assert entry.usage["output"] == int(entry.tags["number"]) + 1
        assert entry.run_id.startswith(entry.tags["agent"])
        assert entry.tags["agent"].endswith(f"-{entry.tags['number']}")


def test_a_wrapped_function_runs_in_the_run_and_in_no_other_thread(ledger, meter):
    with tallystick.run("outer", user="ada") as outer, tallystick.run("inner") as inner:
        threads = [
            threading.Thread(target=inner.wrap(one_call), args=(meter,)),
            threading.Thread(target=one_call, args=(meter,)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    wrapped, bare = ledger.read()
    assert (wrapped.run_id, wrapped.parent_run) == (inner.run_id, outer.run_id)
    assert dict(wrapped.tags) == {"agent": "inner", "user": "ada"}
    assert (bare.run_id, dict(bare.tags)) == (None, {})
    assert outer.calls == 1


def test_updates_come_when_a_call_settles_and_a_broken_callback_ends_no_call(meter):
    seen = []
    with tallystick.run("watched", on_update=lambda run: seen.append(run.cost)) as run:
        one_call(meter)
        one_call(meter)
        assert seen[-1] == run.cost
        assert len(seen) == 2
        run.on_update(lambda run: 1 // 0)
        one_call(meter)
    assert run.calls == 3
    assert meter.faults.counts == {"update": 1}


def test_a_call_that_cannot_fit_is_refused_in_the_providers_shape(ledger, meter):
    with tallystick.run("poor", max_cost="$0.0001") as run:
        status, headers, body = one_call(meter)
    assert (status, headers["x-should-retry"]) == (429, "false")
    assert json.loads(body)["error"]["code"] == "max_cost"
    [entry] = ledger.read()
    assert (entry.status, entry.stopped_by, entry.amount) == ("refused", "max_cost", Money(0))
    assert (run.calls, run.refused, run.cost) == (0, 1, Money(0))
    [total] = ledger.total()
    assert total.complete


@pytest.mark.parametrize(
    ("url", "request_", "field"),
    [
        (URL, REQUEST, "max_completion_tokens"),
        (URL, {**REQUEST, "max_tokens": 4000}, "max_tokens"),
        ("https://api.openai.com/v1/responses", {"model": "gpt-4o", "input": "Hello"}, "max_output_tokens"),
        (
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
            {"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": {"temperature": 0}},
            "generationConfig",
        ),
    ],
)
def test_a_whole_answer_gets_a_maximum_where_little_is_left(meter, url, request_, field):
    body = json.dumps(request_).encode()
    with tallystick.call(max_cost="$0.002"):
        call = meter.call("POST", url, {}, body)
        call.ask()
        sent = json.loads(call.outgoing())
    limit = sent.pop(field)
    if isinstance(limit, dict):
        assert limit.pop("temperature") == 0
        limit = limit["maxOutputTokens"]
    assert 0 < limit <= 1024
    assert sent == {name: value for name, value in request_.items() if name != field}
    with tallystick.call(max_cost="$20"):
        call = meter.call("POST", url, {}, body)
        call.ask()
        assert call.outgoing() is None


def test_embeddings_fit_under_a_limit(meter):
    body = json.dumps({"model": "text-embedding-3-small", "input": "Hello"}).encode()
    with tallystick.call(max_cost="$0.01"):
        call = meter.call("POST", "https://api.openai.com/v1/embeddings", {}, body)
        assert not hasattr(call.ask().result(), "code")
        assert call.outgoing() is None


def test_a_limit_on_a_model_without_a_rate_is_refused_with_the_way_out(meter):
    with tallystick.call(max_cost="$1"):
        status, _, body = one_call(meter, body={**REQUEST, "model": "no-such-model"})
    assert status == 400
    assert "tally rates set" in json.loads(body)["error"]["message"]


def test_a_run_needs_a_name_and_a_limit_that_is_money():
    with pytest.raises(InputError):
        tallystick.run("")
    with pytest.raises(InputError):
        tallystick.run("x", max_cost=0.5)
    with pytest.raises(InputError):
        tallystick.call(max_cost="-$1")
    assert tallystick.run("x", budget="$0.50").budget.limit == 5 * 10**11
