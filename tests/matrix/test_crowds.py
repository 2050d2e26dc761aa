"""Crowds: very many calls at once. Each has its entry, exactly one, under the name of whoever made it.

MATRIX_CALLS=10000 python -m pytest tests/matrix/test_crowds.py
"""

import asyncio
import json
import os
import threading
from collections import Counter

import openai
import pytest

import tallystick
from tallystick.capture.process import make_meter
from tallystick.ledger.intents import SUFFIX, read_flights
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Answer, Simulator

CALLS = int(os.environ.get("MATRIX_CALLS", "400"))
CROWD = 200


@pytest.fixture
def crowd(tmp_path):
    """A provider, and a meter on a ledger in a file; afterwards everything is compared."""
    place = tmp_path / "ledger.db"
    with Simulator(Answer(output_tokens=7), typed=False) as sim:
        with SqliteLedger(place) as ledger:
            meter = make_meter(ledger, place)
            yield sim, meter
            meter.close()
            assert (meter.faults.counts, meter.missed) == ({}, 0)
        calls = sim.calls
    with SqliteLedger(place) as ledger:
        compare(list(ledger.read()), calls)
        [total] = ledger.total()
        assert (total.calls, total.complete) == (CALLS, True)
        assert ledger.verify() == []
    assert read_flights(place.with_name(place.name + SUFFIX)) == []


def compare(entries, calls):
    assert len(entries) == len(calls) == CALLS
    assert len({entry.call_id for entry in entries}) == CALLS
    served = {call.response_id: call for call in calls}
    for entry in entries:
        call = served.pop(entry.provider_response_id.rpartition("-")[2])
        who, number = json.loads(call.body)["messages"][0]["content"].split()
        assert (entry.tags["worker"], entry.tags["number"], entry.tags["agent"]) == (who, number, f"worker {who}")
        assert (entry.usage, entry.quality) == (call.usage, "exact")
    assert served == {}
    share = Counter(entry.run_id for entry in entries)
    assert len(share) == CROWD
    assert set(share.values()) == {CALLS // CROWD}


def asked(who, number):
    messages = [{"role": "user", "content": f"{who} {number}"}]
    return {"model": "gpt-4o", "messages": messages, "stream": number % 2 == 1}


def test_threads(crowd):
    sim, meter = crowd
    failed = []
    with openai.OpenAI(base_url=sim.openai_url, api_key="none", timeout=120) as client:
        tallystick.track(client, meter=meter, provider="openai")

        def work(who):
            try:
                with tallystick.run(f"worker {who}", worker=who) as run:
                    for number in range(CALLS // CROWD):
                        with tallystick.call(number=number):
                            answer = client.chat.completions.create(**asked(who, number))
                            if number % 2:
                                list(answer)
                assert run.calls == CALLS // CROWD
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=work, args=(who,)) for who in range(CROWD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_tasks(crowd):
    sim, meter = crowd

    async def everybody():
        async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="none", timeout=120) as client:
            tallystick.track(client, meter=meter, provider="openai")

            async def work(who):
                with tallystick.run(f"worker {who}", worker=who) as run:
                    for number in range(CALLS // CROWD):
                        with tallystick.call(number=number):
                            answer = await client.chat.completions.create(**asked(who, number))
                            if number % 2:
                                async for _ in answer:
                                    pass
                return run.calls

            return await asyncio.gather(*(work(who) for who in range(CROWD)))

    assert set(asyncio.run(everybody())) == {CALLS // CROWD}
