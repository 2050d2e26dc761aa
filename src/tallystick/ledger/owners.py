"""Owners: who makes holds, whether they still live, and whose turn it is to write. All by locks of the kernel, which
end with the process that has them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from tallystick.errors import LedgerUnavailable
from tallystick.ledger.store import disk_trouble

try:
    import fcntl
except ImportError:  # Windows: there the owner counts as alive until its holds are overdue
    fcntl = None  # type: ignore[assignment]


class Owner:
    """One process that makes holds in the ledger `path`: an id, and a locked file for as long as it lives.

    After a fork the child is another owner; it calls `forsake` on the inherited one.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = path
        self._folder = beside(path, ".owners")
        self._file: int | None = None
        self.owner_id = os.urandom(8).hex()

    def appear(self) -> None:
        """Takes the lock, before the first hold is made. Raises LedgerUnavailable."""
        if self._file is not None:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._file = os.open(self._folder / self.owner_id, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise disk_trouble(self._ledger, error) from error

    def alive(self, owner_id: str) -> bool:
        """Whether an owner's process lives. One that left its lock, or whose file is gone, does not."""
        if owner_id == self.owner_id or fcntl is None:
            return True
        try:
            file = os.open(self._folder / owner_id, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            # Nobody is declared dead for lack of rights.
            return True
        try:
            # Shared, so that two who look at once do not take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    def bury(self, owner_id: str) -> None:
        """Removes the file of a dead owner, whose holds have all been seen to."""
        with contextlib.suppress(OSError):
            (self._folder / owner_id).unlink()

    def leave(self) -> None:
        """Lets go, at the end; what is still open is nobody's then."""
        if self._file is not None:
            self.bury(self.owner_id)
            self.forsake()

    def forsake(self) -> None:
        """Closes the file without a word: in a forked child, whose parent keeps the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Turn:
    """Whose turn it is to write the ledger `path`, among all processes.

    Who waits stands behind a second lock, the door: whoever has just written finds it taken and queues behind, so a
    fast process cannot starve a slow one.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = path
        self._files: tuple[int, int] | None = None
        self._inside = threading.RLock()
        self._depth = 0

    @contextlib.contextmanager
    def taken(self, timeout: float) -> Iterator[None]:
        """Holds the turn, waiting at most `timeout` seconds for it. Raises LedgerUnavailable."""
        with self._inside:
            if self._depth == 0:
                self._take(timeout)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and fcntl is not None:
                    fcntl.flock(self._open()[1], fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the files."""
        if self._files is not None:
            for file in self._files:
                os.close(file)
            self._files = None

    def _take(self, timeout: float) -> None:
        if fcntl is None:
            return None
        door, room = self._open()
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._queue(timeout)
        try:
            fcntl.flock(room, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._queue(timeout)
        fcntl.flock(door, fcntl.LOCK_UN)
        return None

    def _queue(self, timeout: float) -> None:
        """The kernel queues who waits, but it cannot be told for how long; so somebody else stands in the queue."""
        waiter = _Waiter(*self._open())
        waiter.start()
        if waiter.give_up_after(timeout):
            # The one in the queue has the files now, and closes them when its turn comes.
            self._files = None
            raise LedgerUnavailable(
                f"The ledger {self._ledger} is locked: another program has been writing it for too long.",
                money="Nothing of this was entered; what was there before is intact.",
                todo="Try again, or end that program.",
            )

    def _open(self) -> tuple[int, int]:
        if self._files is None:
            try:
                door, room = (
                    os.open(beside(self._ledger, end), os.O_CREAT | os.O_RDWR, 0o600) for end in (".door", ".lock")
                )
            except OSError as error:
                raise disk_trouble(self._ledger, error) from error
            self._files = door, room
        return self._files


class _Waiter(threading.Thread):
    def __init__(self, door: int, room: int) -> None:
        super().__init__(name="tallystick-turn", daemon=True)
        self._door = door
        self._room = room
        self._came = threading.Event()
        self._deciding = threading.Lock()
        self._given_up = False

    def run(self) -> None:
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        with self._deciding:
            if self._given_up:
                # Closing alone would not do: a child forked meanwhile has the file too.
                fcntl.flock(self._room, fcntl.LOCK_UN)
                os.close(self._door)
                os.close(self._room)
            self._came.set()

    def give_up_after(self, timeout: float) -> bool:
        """Whether the turn did not come in time; what comes later is let go at once."""
        self._came.wait(timeout)
        with self._deciding:
            self._given_up = not self._came.is_set()
            return self._given_up


def beside(path: Path, ending: str) -> Path:
    """The path of a file that belongs to a ledger's."""
    return path.with_name(path.name + ending)
