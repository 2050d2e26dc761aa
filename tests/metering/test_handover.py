"""What a ledger's threads tell an event loop arrives, however many at once, and whoever goes away."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tallystick.ledger.promise import Promise
from tallystick.metering.handover import awaitable


def test_a_crowd_is_told_by_other_threads() -> None:
    promises: list[Promise[int]] = [Promise() for _ in range(500)]

    def tell(first: int) -> None:
        for number in range(first, 500, 4):
            promises[number].set_result(number)

    async def play() -> list[int]:
        waiting = [awaitable(promise) for promise in promises]
        threads = [threading.Thread(target=tell, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        found = await asyncio.gather(*waiting)
        for thread in threads:
            thread.join()
        return found

    assert asyncio.run(play()) == list(range(500))


def test_a_crowd_wakes_the_loop_once() -> None:
    async def play() -> int:
        woken = 0
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(*given: object) -> object:
            nonlocal woken
            woken += 1
            return call(*given)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[assignment,method-assign]
        promises: list[Promise[int]] = [Promise() for _ in range(100)]
        waiting = [awaitable(promise) for promise in promises]
        for promise in promises:
            promise.set_result(1)
        assert sum(await asyncio.gather(*waiting)) == 100
        return woken

    assert asyncio.run(play()) == 1


def test_errors_and_cancellations_arrive() -> None:
    async def play() -> None:
        failed: Promise[int] = Promise()
        dropped: Promise[int] = Promise()
        left: Promise[int] = Promise()
        waiting = [awaitable(one) for one in (failed, dropped, left)]
        failed.set_exception(ValueError("no"))
        dropped.cancel()
        waiting[2].cancel()
        with pytest.raises(ValueError, match="no"):
            await waiting[0]
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        await asyncio.sleep(0)
        assert left.cancelled()

    asyncio.run(play())


def test_who_is_told_after_the_loop_has_gone_is_in_nobodys_way() -> None:
    promise: Promise[int] = Promise()

    async def play() -> None:
        waiting = awaitable(promise)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.01)

    asyncio.run(play())
    promise.set_result(1)
    assert promise.result() == 1
