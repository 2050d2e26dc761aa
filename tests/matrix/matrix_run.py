"""Run: one cell of the matrix, once with a bare client and once with a tracked one, and everything that must hold."""

import asyncio
import gc
import inspect
import json
import tempfile
import time
import warnings
from pathlib import Path

from matrix_seen import Caller, delivered_text, told

import tallystick
from tallystick.capture.process import make_meter
from tallystick.core.usage import INPUT_KINDS, OUTPUT_KINDS
from tallystick.ledger.intents import SUFFIX as FLIGHTS
from tallystick.ledger.intents import read_flights
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Simulator

SERIES = "matrix00"
_OWN_HEADERS = frozenset(
    {
        "host", "content-length", "authorization", "x-amz-date", "amz-sdk-invocation-id", "amz-sdk-request",
        "x-amz-content-sha256", "idempotency-key", "x-stainless-read-timeout",
    }
)  # fmt: skip
"""Headers of a request that differ from one run to the next, or with the host and the body."""


def play(cell, sim, meter):
    """One run of a cell; with a meter, its client is tracked."""
    caller = Caller()
    asynchronous = inspect.iscoroutinefunction(cell.use)

    def made():
        client = cell.maker.make(sim)
        caller.watch(client)
        if meter is not None:
            tracked = cell.maker.track(client, meter, cell.provider)
            assert tracked is client, "tracking gave another object"
        return client

    if asynchronous:
        asyncio.run(_play_async(cell, made, caller))
    else:
        client = made()
        try:
            _guarded(cell, caller, client)
        finally:
            if not caller.kept:
                cell.maker.close(client)
            else:
                caller.kept.append(client)
    if not cell.whole:
        gc.collect()
    return caller


def _guarded(cell, caller, client):
    try:
        cell.use(client, caller, cell.model)
    except Exception as error:
        if not cell.raises:
            raise
        caller.say(error)
        caller.say(error.__cause__)


async def _play_async(cell, made, caller):
    client = made()
    try:
        await cell.use(client, caller, cell.model)
    except Exception as error:
        if not cell.raises:
            raise
        caller.say(error)
        caller.say(error.__cause__)
    finally:
        if not caller.kept:
            await cell.maker.aclose(client)


def one_certificate(folder):
    """A file with one certificate authority. No call here uses TLS, yet each client would load all that there are."""
    import certifi

    end = "-----END CERTIFICATE-----\n"
    place = Path(folder) / "one.pem"
    place.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end, encoding="utf-8")
    return str(place)


def run_cell(cell):
    """Runs a cell both ways. Returns a row of the table; raises AssertionError for whatever does not hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Simulator(cell.answer, series=SERIES) as sim:
            bare = play(cell, sim, None)
            _drop(bare)
            bare_calls = sim.wait(cell.calls)
        with tempfile.TemporaryDirectory() as folder, Simulator(cell.answer, series=SERIES) as sim:
            place = Path(folder) / "ledger.db"
            tracked, calls = _metered(cell, sim, place)
            with SqliteLedger(place) as ledger:
                entries = sorted(ledger.read(), key=lambda entry: (entry.started_at, entry.call_id))
                assert ledger.verify() == []
            assert read_flights(place.with_name(place.name + FLIGHTS)) == [], "a call is still in flight"
            assert not list(Path(folder).glob("*.spool/*")), "an entry is in the spool"
    check_caller(cell, bare, tracked)
    check_wire(cell, bare_calls, calls)
    check_entries(cell, entries, calls, tracked)
    return {
        "cell": cell.id,
        "entries": [
            {"quality": entry.quality, "status": entry.status, "usage": None if entry.usage is None else dict(entry.usage),
             "usd": None if entry.amount is None else str(entry.amount.to_decimal())}
            for entry in entries
        ],
        "served": [None if call.usage is None else dict(call.usage) for call in calls],
        "bytes": sum(len(part) for parts in tracked.handed for part in parts),
    }  # fmt: skip


def _metered(cell, sim, place):
    """The run with a tracked client, up to the end of its process."""
    with SqliteLedger(place) as ledger:
        meter = make_meter(ledger, place)
        tracked = play(cell, sim, meter)
        if cell.settles == "collected":
            _soon(lambda: len(list(ledger.read())) == len(cell.expect))
            assert len(list(ledger.read())) == len(cell.expect), "a forgotten stream has not settled"
        if cell.settles == "kept":
            assert list(ledger.read()) == [], "a stream that is kept open has settled"
            meter.close()
        _drop(tracked)
        calls = sim.wait(cell.calls)
        meter.close()
        assert meter.faults.counts == {}, meter.faults.counts
        assert meter.missed == 0
    return tracked, calls


def _drop(caller):
    for one in caller.kept:
        close = getattr(one, "close", None)
        if close is not None and not inspect.iscoroutinefunction(close):
            close()
    caller.kept.clear()


def _soon(check, seconds=10.0):
    until = time.monotonic() + seconds
    while not check() and time.monotonic() < until:
        time.sleep(0.005)


def check_caller(cell, bare, tracked):
    """The caller sees the same, with and without us."""
    assert tracked.said == bare.said, _first_difference(bare.said, tracked.said)
    dropped = {"content-encoding", "content-length"} if cell.inflated else set()
    for one, other in zip(bare.headers, tracked.headers, strict=True):
        plain = [[name, value] for name, value in one[1] if name not in dropped]
        assert [[one[0], plain], *one[2:]] == [[other[0], other[1]], *other[2:]]
    for one, other in zip(bare.handed, tracked.handed, strict=True):
        expected, ours = b"".join(one), b"".join(other)
        if cell.inflated or (cell.answer_encoding and not cell.whole):
            continue
        if cell.whole:
            assert ours == expected
        else:
            size = min(len(ours), len(expected))
            assert ours[:size] == expected[:size]


def _first_difference(one, other):
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return f"said {place}: {left!r} became {right!r}"[:2000]
    return f"{len(one)} became {len(other)}: {one[len(other) :]!r} {other[len(one) :]!r}"[:2000]


def check_wire(cell, bare, tracked):
    """The provider gets the same, but for the usage option that is switched on."""
    assert len(bare) == len(tracked)
    for one, other in zip(bare, tracked, strict=True):
        assert (one.method, one.path, one.query) == (other.method, other.path, other.query)
        assert _sent(one) == _sent(other)
        if _body(one) == _body(other):
            continue
        changed = json.loads(other.body)
        assert changed.pop("stream_options") == {"include_usage": True}
        before = json.loads(one.body)
        before.pop("stream_options", None)
        assert changed == before


def _sent(call):
    return {name: told(value) for name, value in call.headers.items() if name not in _OWN_HEADERS}


def _body(call):
    """The body; a form without the words it is divided by, which are made up anew each time."""
    divided = call.headers.get("content-type", "").partition("boundary=")[2]
    return call.body.replace(divided.encode(), b"") if divided else call.body


def check_entries(cell, entries, calls, tracked):
    """The ledger says what was served."""
    assert len(entries) == len(cell.expect), [(entry.status, entry.quality) for entry in entries]
    assert len({entry.call_id for entry in entries}) == len(entries)
    billed = [calls[place] for place in cell.billed] if cell.billed is not None else calls
    for place, (entry, expected) in enumerate(zip(entries, cell.expect, strict=True)):
        call = billed[place] if place < len(billed) else None
        handed = b"".join(tracked.handed[place]) if place < len(tracked.handed) else None
        assert entry.provider == (cell.provider or entry.provider)
        assert dict(entry.tags) == {"cell": "matrix"}
        try:
            _CHECKS[expected](cell, entry, call, handed)
        except AssertionError as error:
            raise AssertionError(f"{error} entry {place}: {_shown(entry)}") from error
    if len(entries) > 1 and cell.attempts:
        assert [entry.attempt_of for entry in entries] == [None] + [entries[0].call_id] * (len(entries) - 1)
    elif cell.attempts is False:
        assert {entry.attempt_of for entry in entries} <= {None}


def _shown(entry):
    usage = None if entry.usage is None else dict(entry.usage)
    return f"{entry.status} {entry.http_status} {entry.quality} {usage} {entry.amount} stopped by {entry.stopped_by}"


def _exact(cell, entry, call, handed):
    assert (entry.quality, entry.status, entry.http_status) == ("exact", cell.status, 200)
    assert entry.usage == call.usage, f"{entry.usage} instead of {call.usage}"
    assert entry.usage, "nothing was used"
    _priced(cell, entry, call.usage)
    if call.response_id is None or cell.no_id:
        return
    assert entry.provider_response_id is not None
    assert entry.provider_response_id.endswith(call.response_id)


def _lower_bound(cell, entry, call, handed):
    assert entry.quality == "lower_bound"
    assert entry.status == cell.ends
    text = call.delivered if handed is None else delivered_text(handed)
    counted = tallystick.count(text, model=call.model).low
    made = sum(entry.usage.get(kind, 0) for kind in OUTPUT_KINDS)
    if handed is None:
        assert 0 < made <= counted
    else:
        assert made == max(counted, cell.stated_output), f"{made} instead of {counted} for {text!r}"
    served = sum(call.usage.get(kind, 0) for kind in INPUT_KINDS)
    asked = sum(entry.usage.get(kind, 0) for kind in INPUT_KINDS)
    assert 0 < asked <= served
    if cell.input_exact:
        assert asked == served
    _priced(cell, entry, entry.usage)


def _unknown(cell, entry, call, handed):
    assert (entry.quality, entry.usage, entry.cost) == ("unknown", None, None)


def _unread(cell, entry, call, handed):
    """Nothing was handed over: all that can be said is that the prompt was read, or that nothing is known."""
    assert handed == b""
    assert (entry.status, entry.quality) in (("cancelled", "unknown"), ("cancelled", "lower_bound"))
    if entry.quality == "unknown":
        _unknown(cell, entry, call, handed)
    else:
        served = sum(call.usage.get(kind, 0) for kind in INPUT_KINDS)
        assert set(entry.usage) == {"input"}
        assert 0 < entry.usage["input"] <= served
        _priced(cell, entry, entry.usage)


def _free(cell, entry, call, handed):
    assert (entry.status, entry.http_status) == ("error", call.status)
    assert call.usage is None
    assert (dict(entry.usage), entry.amount.pico) == ({}, 0)
    assert "bill nothing" in entry.cost.notes[0]


def _priced(cell, entry, usage):
    """The cost is what `tallystick.price` says of it, and no zero."""
    names = [entry.requested_model, entry.model] if entry.api.startswith("bedrock") else [entry.model]
    cost = tallystick.price(
        usage, model=names[0], provider=entry.provider, api=entry.api, at=entry.started_at, context=cell.context
    )
    assert entry.amount == cost.amount, f"{entry.amount} instead of {cost.amount}"
    assert entry.amount is not None
    assert entry.amount.pico > 0


_CHECKS = {"exact": _exact, "lower_bound": _lower_bound, "unknown": _unknown, "unread": _unread, "free": _free}
