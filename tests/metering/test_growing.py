"""A hold grows with its stream; a stream that nobody can pay any more is ended."""

import asyncio
import json
from concurrent.futures import Future

import httpx

import tallystick
from tallystick.capture.process import close_meters
from tallystick.core.attribution import Tags
from tallystick.ledger.budget import Budget
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.growing import Growth, grown

CHAT = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


class Held:
    """A leave that covers 100 tokens and gives what the test decides."""

    def __init__(self):
        self.covered = 100
        self.asked = []

    def grow(self, output):
        future = Future()
        self.asked.append((output, future))
        return future

    def give(self, output):
        self.covered = max(self.covered, output)
        self.asked[-1][1].set_result(self.covered)


def test_more_is_asked_for_before_it_is_needed_and_once():
    leave = Held()
    growth = Growth(leave, None)
    assert not growth.exceeds(60, 70, 60)
    assert leave.asked == []
    assert not growth.exceeds(80, 90, 80)
    assert not growth.exceeds(85, 95, 85)
    assert [output for output, _ in leave.asked] == [200]
    leave.give(200)
    assert not growth.exceeds(100, 110, 100)
    assert growth.pause is None


def test_a_stream_that_reaches_its_hold_pauses_and_ends_where_nothing_is_left():
    leave = Held()
    growth = Growth(leave, None)
    assert not growth.exceeds(95, 105, 95)
    assert growth.pause is leave.asked[-1][1]
    leave.give(100)
    assert growth.exceeds(98, 108, 98)


def test_an_answer_that_the_provider_ends_in_time_is_not_ended_here():
    leave = Held()
    growth = Growth(leave, 100)
    assert not growth.exceeds(100, 164, 100)
    assert growth.exceeds(101, 165, 101)
    # Tokens that can only be estimated: at most 190, and yet surely no more than the provider's own limit.
    assert not growth.exceeds(190, 254, 60)
    assert leave.asked == []


def test_waiting_for_a_hold_does_not_block_the_loop_and_does_not_raise():
    async def wait(future):
        ticks = 0

        async def tick():
            nonlocal ticks
            ticks += 1
            future.set_exception(RuntimeError("the ledger is gone"))

        await asyncio.gather(grown(future), tick())
        return ticks

    assert asyncio.run(wait(Future())) == 1


def test_a_provider_that_goes_on_is_cut_where_the_budget_ends():
    def answer(request):
        assert json.loads(request.content)["max_completion_tokens"] < 1000

        def events():
            for _ in range(3000):
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
                choice = {"index": 0, "delta": {"content": " word"}, "finish_reason": None}
                yield b"data: %b\n\n" % json.dumps({**chunk, "choices": [choice]}).encode()

        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=events())

    with MemoryLedger() as ledger, httpx.Client(transport=httpx.MockTransport(answer)) as client:
        ledger.put_budget(Budget(budget_id="team-a", limit=5 * 10**9, scope=Tags(team="a")))
        tallystick.track(client, ledger=ledger, provider="openai", team="a")
        with client.stream("POST", "https://api.openai.com/v1/chat/completions", json=CHAT) as response:
            lines = [line for line in response.iter_lines() if line]
        close_meters()
        [entry] = ledger.read()
        [account] = ledger.accounts("team-a")
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert (entry.status, entry.stopped_by, entry.quality) == ("cut", "budget", "lower_bound")
    assert entry.usage is not None
    assert 100 < entry.usage.output_tokens < 1000
    # It was told its limit and went past it; what that piece cost is on the record.
    assert account.balance.spent == 5 * 10**9 + account.balance.overdraft
    assert account.balance.overdraft <= 2 * 10_000_000
