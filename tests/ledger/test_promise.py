"""A promise is a future in every respect, for whoever waits, cancels, or is called back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, InvalidStateError, as_completed, wait

import pytest

from tallystick.ledger.promise import Promise


def test_it_tells_its_result_to_who_comes_later() -> None:
    promise: Promise[int] = Promise()
    assert not promise.done()
    promise.set_result(7)
    assert promise.done()
    assert promise.result() == 7
    assert promise.exception() is None
    assert not promise.cancelled()
    assert not promise.running()


def test_it_tells_its_result_to_threads_that_wait() -> None:
    promise: Promise[int] = Promise()
    found: list[int] = []
    waiting = [threading.Thread(target=lambda: found.append(promise.result(10))) for _ in range(8)]
    for thread in waiting:
        thread.start()
    promise.set_result(7)
    for thread in waiting:
        thread.join()
    assert found == [7] * 8


def test_it_raises_its_error_again_and_again() -> None:
    promise: Promise[int] = Promise()
    error = ValueError("no")
    promise.set_exception(error)
    assert promise.exception() is error
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            promise.result()


def test_who_waits_too_long_is_told_so() -> None:
    promise: Promise[int] = Promise()
    with pytest.raises(TimeoutError):
        promise.result(0.01)
    with pytest.raises(TimeoutError):
        promise.exception(0)
    promise.set_result(1)
    assert promise.result(0) == 1


def test_callbacks_are_called_once_and_in_order() -> None:
    promise: Promise[int] = Promise()
    called: list[int] = []
    promise.add_done_callback(lambda _: called.append(1))
    promise.add_done_callback(lambda _: called.append(2))
    promise.set_result(1)
    promise.add_done_callback(lambda done: called.append(done.result() + 2))
    assert called == [1, 2, 3]


def test_a_callback_that_fails_is_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    promise: Promise[int] = Promise()
    called: list[int] = []

    def fails(_: object) -> None:
        raise ValueError("no")

    promise.add_done_callback(fails)
    promise.add_done_callback(lambda _: called.append(1))
    promise.set_result(1)
    assert called == [1]
    assert "exception calling callback" in caplog.text


def test_a_cancelled_one_takes_no_result() -> None:
    promise: Promise[int] = Promise()
    called: list[bool] = []
    promise.add_done_callback(lambda done: called.append(done.cancelled()))
    assert promise.cancel()
    assert promise.cancel()
    assert called == [True]
    with pytest.raises(CancelledError):
        promise.result()
    with pytest.raises(CancelledError):
        promise.exception()
    with pytest.raises(InvalidStateError):
        promise.set_result(1)
    with pytest.raises(InvalidStateError):
        promise.set_exception(ValueError())


def test_one_that_has_its_result_takes_no_other_and_cannot_be_cancelled() -> None:
    promise: Promise[int] = Promise()
    promise.set_result(1)
    assert not promise.cancel()
    with pytest.raises(InvalidStateError):
        promise.set_result(2)
    assert promise.result() == 1


def test_one_that_runs_cannot_be_cancelled_any_more() -> None:
    promise: Promise[int] = Promise()
    assert promise.set_running_or_notify_cancel()
    assert promise.running()
    assert not promise.cancel()
    with pytest.raises(InvalidStateError):
        promise.set_running_or_notify_cancel()
    promise.set_result(1)
    assert promise.result() == 1
    with pytest.raises(InvalidStateError):
        promise.set_result(2)


def test_who_would_run_a_cancelled_one_is_told_so() -> None:
    promise: Promise[int] = Promise()
    promise.cancel()
    assert not promise.set_running_or_notify_cancel()
    assert promise.cancelled()


def test_the_librarys_own_functions_wait_for_it() -> None:
    first: Promise[int] = Promise()
    second: Promise[int] = Promise()
    third: Promise[int] = Promise()
    threading.Timer(0.01, first.set_result, (1,)).start()
    found = wait([first, second], timeout=10, return_when=FIRST_COMPLETED)
    assert found.done == {first}
    threading.Timer(0.01, second.set_exception, (ValueError("no"),)).start()
    threading.Timer(0.02, lambda: (third.cancel(), third.set_running_or_notify_cancel())).start()
    assert {id(one) for one in as_completed([first, second, third], timeout=10)} == {id(first), id(second), id(third)}


def test_an_event_loop_waits_for_it() -> None:
    async def play() -> int:
        promise: Promise[int] = Promise()
        threading.Timer(0.01, promise.set_result, (7,)).start()
        dropped: Promise[int] = Promise()
        waiting = asyncio.wrap_future(dropped)
        await asyncio.sleep(0)
        waiting.cancel()
        found = await asyncio.wrap_future(promise)
        assert dropped.cancelled()
        return found

    assert asyncio.run(play()) == 7


def _together(works: list[Callable[[], object]]) -> None:
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("_", range(20))
def test_of_those_that_end_it_at_once_one_does(_: int) -> None:
    promise: Promise[int] = Promise()
    told: list[object] = []
    heard: list[bool] = []

    def tell() -> None:
        try:
            promise.set_result(1)
        except InvalidStateError:
            return
        told.append("result")

    def cancel() -> None:
        if promise.cancel():
            told.append("cancelled")

    def ask() -> None:
        promise.add_done_callback(lambda done: heard.append(done.cancelled()))

    _together([tell, cancel, ask, ask, tell, lambda: promise.exception if promise.done() else None])
    assert len(told) == 1
    assert heard == [promise.cancelled()] * 2
    assert promise.cancelled() == (told == ["cancelled"])
