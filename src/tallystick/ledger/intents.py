"""Intents: the calls of a process that have begun and not ended, in a small file mapped into memory beside the ledger.

A slot is filled when a call is sent, changed in place while it streams and freed once its entry is written; between
its end and that it may keep the entry itself. None of it is a system call. What stands in the file outlives a killed
process (though not a power cut), so that other processes can watch, and a repair can enter the calls that have ended
as well as those that nobody will finish. The owner holds a lock on its file; the lock dies with it.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

try:
    import fcntl
except ImportError:  # Windows: calls are metered all the same, but nobody else sees them in flight.
    fcntl = None  # type: ignore[assignment]

SUFFIX: Final = ".flight"
SLOT: Final = 4096
SEGMENT: Final = 64
"""Slots that a file grows by: 256 KiB, which every platform can map."""

_MAGIC: Final = b"tallyfl2"
_FIXED: Final = struct.Struct("<B7xqqqqq40s40s40s120s120s")
_MOVE: Final = struct.Struct("<qqqq")
_MOVE_AT: Final = 16
_LENGTH: Final = struct.Struct("<I")
_LENGTH_AT: Final = _FIXED.size
_RECORD_AT: Final = _LENGTH_AT + _LENGTH.size
ROOM: Final = SLOT - _RECORD_AT
"""Bytes that a slot has for the record of a call that has ended."""

_MOST: Final = 2**63 - 1
_FREE, _OPEN, _DONE = 0, 1, 2


class InFlight(msgspec.Struct, frozen=True):
    """A call that has begun and not ended, as another process sees it. Times are microseconds since 1970 UTC; `output`
    is generated tokens and `pico` picodollars so far, both estimates. `alive` says whether its process still runs.
    `record` is there for a call that has ended and may not be in the ledger, `note` for one in flight of which there is
    more to say."""

    call_id: str
    started_us: int
    updated_us: int
    response_bytes: int
    output: int
    pico: int
    provider: str
    api: str
    model: str
    run_id: str
    alive: bool
    owner: str
    record: bytes | None = None
    note: bytes | None = None


class Slot:
    """The place of one call in flight. Only the one who feeds the call changes it."""

    __slots__ = ("_at", "_give_back", "_map")

    def __init__(self, view: mmap.mmap, at: int, give_back: Callable[[Slot], None]) -> None:
        self._map = view
        self._at = at
        self._give_back: Callable[[Slot], None] | None = give_back

    def move(self, now_us: int, response_bytes: int, output: int, pico: int) -> None:
        """The call has come so far."""
        if self._give_back is not None:
            _MOVE.pack_into(self._map, self._at + _MOVE_AT, now_us, response_bytes, output, min(pico, _MOST))

    def finish(self, record: bytes) -> bool:
        """The call has ended, and this is all there is to say of it; kept until the slot is freed. False where there is
        no room for so much."""
        size = len(record)
        if size > ROOM or self._give_back is None:
            return False
        view, at = self._map, self._at
        view[at + _RECORD_AT : at + _RECORD_AT + size] = record
        _LENGTH.pack_into(view, at + _LENGTH_AT, size)
        # The state goes in last: whoever finds it so finds all of the record.
        view[at] = _DONE
        return True

    @property
    def finished(self) -> bool:
        """Whether it keeps the record of a call that has ended."""
        return self._give_back is not None and self._map[self._at] == _DONE

    def free(self) -> None:
        """The call's entry is written. Freeing twice is harmless."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self._map[self._at] = _FREE
            give_back(self)


class Intents:
    """The file of this process in a folder; made when the first call begins, removed by `close` when none is left.

    A forked child starts a file of its own. Where no file can be made, `open` gives None and calls go on without.
    """

    def __init__(self, folder: Path, name: Callable[[], str]) -> None:
        self._folder = folder
        self._name = name
        self._lock = threading.Lock()
        self._used = 0
        self._forget()

    def open(self, call_id: str, started_us: int, words: tuple[str, str, str, str], note: bytes = b"") -> Slot | None:
        """A slot for a call that begins; `words` are provider, api, model and run id, and `note` is what else should be
        known of it should its process be killed, as far as there is room."""
        with self._lock:
            if self._owner != os.getpid():
                self._renew()
            if self._broken or (not self._slots and not self._grow()):
                return None
            slot_map, at = self._slots.pop()
            self._used += 1
        # The state goes in last: a reader sees a whole slot or none.
        _FIXED.pack_into(slot_map, at, _FREE, started_us, started_us, 0, 0, 0, call_id.encode(), *_encoded(words))
        size = len(note) if len(note) <= ROOM else 0
        slot_map[at + _RECORD_AT : at + _RECORD_AT + size] = note[:size]
        _LENGTH.pack_into(slot_map, at + _LENGTH_AT, size)
        slot_map[at] = _OPEN
        return Slot(slot_map, at, self._take_back)

    @property
    def folder(self) -> Path:
        """Where the file lies, beside those of other processes."""
        return self._folder

    @property
    def used(self) -> int:
        """How many slots are taken."""
        return self._used

    def close(self) -> None:
        """Lets go of the file, and removes it when no call in it is open."""
        with self._lock:
            if self._owner != os.getpid():
                return
            handle, place, used = self._handle, self._place, self._used
            self._forget()
            self._broken = True
            if place is not None and not used:
                place.unlink(missing_ok=True)
            if handle is not None:
                # The memory mapped from the file would keep the lock as long as somebody has a slot of it.
                fcntl.flock(handle, fcntl.LOCK_UN)
                os.close(handle)

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._broken = fcntl is None
        self._handle: int | None = None
        self._place: Path | None = None
        self._slots: list[tuple[mmap.mmap, int]] = []
        self._segments = 0
        self._used = 0

    def _renew(self) -> None:
        """In a forked child: the file is the parent's. Closing our copy of its handle leaves the parent its lock."""
        handle = self._handle
        self._forget()
        if handle is not None:
            os.close(handle)

    def _take_back(self, slot: Slot) -> None:
        with self._lock:
            if self._owner == os.getpid() and self._handle is not None:
                self._slots.append((slot._map, slot._at))  # noqa: SLF001 - its own slots
                self._used -= 1

    def _grow(self) -> bool:
        """Room for more calls; False where the disk gives none."""
        try:
            if self._handle is None:
                self._create()
            handle = self._handle
            start = self._segments * SEGMENT * SLOT
            # Written, not only reserved: a full disk shows here and not as a signal at some later write.
            os.pwrite(handle, bytes(SEGMENT * SLOT), start)  # type: ignore[arg-type]
            view = mmap.mmap(handle, SEGMENT * SLOT, offset=start)  # type: ignore[arg-type]
        except (OSError, ValueError):
            self._broken = True
            return False
        first = 0
        if not self._segments:
            view[: len(_MAGIC)] = _MAGIC
            first = 1
        self._segments += 1
        self._slots += [(view, number * SLOT) for number in range(SEGMENT - 1, first - 1, -1)]
        return True

    def _create(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = self._name()
        made = self._folder / f"{name}.new"
        self._handle = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        # Locked before it has its name: whoever finds it finds it owned.
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        self._place = self._folder / name
        made.rename(self._place)


@lru_cache(maxsize=256)
def _encoded(words: tuple[str, str, str, str]) -> tuple[bytes, bytes, bytes, bytes]:
    provider, api, model, run_id = (word.encode("utf-8", "replace") for word in words)
    return provider[:40], api[:40], model[:120], run_id[:120]


def read_flights(folder: Path) -> list[InFlight]:
    """The calls in flight of all processes that use a ledger, oldest first; those of dead ones too. Those that have
    ended are not in flight."""
    found = [flight for flight in _look(folder) if flight.record is None]
    return sorted(found, key=lambda flight: (flight.started_us, flight.call_id))


def read_ended(folder: Path, call_id: str) -> bytes | None:
    """The record of a call that has ended and may not be in the ledger yet; None where there is none."""
    return next((flight.record for flight in _look(folder) if flight.call_id == call_id and flight.record), None)


def _look(folder: Path) -> list[InFlight]:
    found: list[InFlight] = []
    for place in _files(folder):
        try:
            handle = os.open(place, os.O_RDONLY)
        except OSError:
            continue
        try:
            dead = _locked(handle, fcntl.LOCK_SH)
            found += _read(handle, place.name, alive=not dead)
        finally:
            os.close(handle)
    return found


@contextmanager
def leftovers(folder: Path) -> Iterator[list[InFlight]]:
    """The calls in flight of dead processes, and those that have ended; nobody else can take them meanwhile. When the
    block ends without an error they are taken out, but for those that it has taken off the list."""
    with _taken(folder, lambda _flight: True) as found:
        yield found


@contextmanager
def ended(folder: Path) -> Iterator[list[InFlight]]:
    """The calls of dead processes that have ended and may not be in the ledger; otherwise like `leftovers`. Those in
    flight stay."""
    with _taken(folder, lambda flight: flight.record is not None) as found:
        yield found


@contextmanager
def _taken(folder: Path, wanted: Callable[[InFlight], bool]) -> Iterator[list[InFlight]]:
    with _dead(folder) as files:
        slots = [[*_slots(handle, place.name, alive=False)] for place, handle in files]
        found = [flight for some in slots for _, flight in some if wanted(flight)]
        yield found
        over = {(flight.owner, flight.call_id) for flight in found}
        for (place, handle), some in zip(files, slots, strict=True):
            done = [at for at, flight in some if (flight.owner, flight.call_id) in over]
            if len(done) == len(some):
                place.unlink(missing_ok=True)
                continue
            for at in done:
                os.pwrite(handle, bytes((_FREE,)), at)


@contextmanager
def _dead(folder: Path) -> Iterator[list[tuple[Path, int]]]:
    """The files whose owners are gone, locked."""
    found: list[tuple[Path, int]] = []
    try:
        for place in _files(folder):
            try:
                handle = os.open(place, os.O_RDWR)
            except OSError:
                # Taken away by another one who looks at the same.
                continue
            found.append((place, handle))
            if not _locked(handle, fcntl.LOCK_EX) or _foreign(handle):
                found.pop()
                os.close(handle)
        yield found
    finally:
        for _, handle in found:
            os.close(handle)


def _files(folder: Path) -> list[Path]:
    if fcntl is None or not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if place.suffix != ".new" and place.is_file())


def _locked(handle: int, kind: int) -> bool:
    """Whether the lock could be had, which means that the owner is gone."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _foreign(handle: int) -> bool:
    """Whether another version has written a file: what it says can only be read by that one."""
    head = os.pread(handle, len(_MAGIC), 0)
    return head != _MAGIC and bool(head.strip(b"\0"))


def _read(handle: int, owner: str, *, alive: bool) -> Iterator[InFlight]:
    for _, flight in _slots(handle, owner, alive=alive):
        yield flight


def _slots(handle: int, owner: str, *, alive: bool) -> Iterator[tuple[int, InFlight]]:
    """The calls in a file, each with its place."""
    size = os.fstat(handle).st_size
    data = os.pread(handle, size, 0)
    if not data.startswith(_MAGIC):
        return
    for at in range(SLOT, len(data) - SLOT + 1, SLOT):
        state = data[at]
        if state not in (_OPEN, _DONE):
            continue
        size = _LENGTH.unpack_from(data, at + _LENGTH_AT)[0]
        rest = data[at + _RECORD_AT : at + _RECORD_AT + min(size, ROOM)]
        record, note = (rest, None) if state == _DONE else (None, rest or None)
        _, started, updated, received, output, pico, *words = _FIXED.unpack_from(data, at)
        call_id, provider, api, model, run_id = (word.rstrip(b"\0").decode("utf-8", "replace") for word in words)
        yield (
            at,
            InFlight(
                call_id,
                started,
                updated,
                received,
                output,
                pico,
                provider,
                api,
                model,
                run_id,
                alive,
                owner,
                record,
                note,
            ),
        )
