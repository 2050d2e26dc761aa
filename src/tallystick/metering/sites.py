"""Sites: what earlier calls of one call site have taught about the next one: how much input the provider counts that
nobody here sees, and how long the answers are."""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from tallystick.ledger.entry import Entry
from tallystick.metering.bounds import AdaptiveQuantile
from tallystick.wire.facts import RequestFacts

COVERAGE: Final = 0.95
"""The share of a call site's answers that its learned bound is meant to cover."""

PAIRS: Final = 16
"""How many of a site's last calls are looked at for hidden input."""

KEPT: Final = 64
"""How many answer lengths of a site are kept in the ledger."""

MOST_SITES: Final = 1000
"""Sites that a process and a ledger remember; the longest unused are forgotten."""

SHORT: Final = 4096
"""What names a call site is remembered with its hash up to so many characters."""

WRITE_SECONDS: Final = 5.0
NAMESPACE: Final = "calibration"
KEY_NAME: Final = "key"
_KEY_BYTES: Final = 32


class Shelf(Protocol):
    """Where sites are kept: a ledger's state."""

    def state(self, namespace: str, key: str, value: str | msgspec.UnsetType | None = msgspec.UNSET) -> str | None:
        """See `Ledger.state`."""
        ...

    def states(self, namespace: str) -> dict[str, str]:
        """See `Ledger.states`."""
        ...


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A site as the ledger keeps it: when it was written (seconds since 1970), pairs of input counted here and by the
    provider, answer lengths, and how much of them was reasoning, oldest first."""

    at: int
    pairs: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]
    reasoning: tuple[int, ...]


_decode: Final = msgspec.json.Decoder(Kept).decode
# Made here, because two threads that need a type for the first time at once bring msgspec down.


class Site:
    """What is known of one call site. Threads may share it."""

    def __init__(self, kept: Kept | None = None) -> None:
        self._lock = threading.Lock()
        self.pairs: deque[tuple[int, int]] = deque(() if kept is None else kept.pairs, PAIRS)
        self.recent: deque[int] = deque(() if kept is None else kept.outputs, KEPT)
        self.thoughts: deque[int] = deque(() if kept is None else kept.reasoning, KEPT)
        self._outputs = AdaptiveQuantile(COVERAGE).extend(self.recent)
        self.written = 0.0
        self.lesson: Lesson | None = None

    @property
    def learned(self) -> bool:
        """Whether a settled call has shown how much the provider counts."""
        return bool(self.pairs)

    @property
    def output(self) -> int | None:
        """The learned bound of an answer's length, None before 20 settled calls."""
        with self._lock:
            return self._outputs.bound

    @property
    def reasoning(self) -> int:
        """The most that the last calls reasoned, in tokens that no stream shows."""
        with self._lock:
            return max(self.thoughts, default=0)

    def input(self, counted: int) -> int:
        """The input that the provider will count for a prompt that counts so much here: with the largest surplus of the
        last calls, in proportion where the prompt is more than twice as long as the one that showed it."""
        with self._lock:
            surplus = [_surplus(here, there, counted) for here, there in self.pairs]
        return counted + max(surplus, default=0)

    def learn(self, counted: int | None, entry: Entry) -> None:
        """Takes in a settled call. Only exact usage teaches."""
        usage = entry.usage
        if usage is None or entry.quality != "exact" or entry.status not in ("ok", "cut"):
            return
        with self._lock:
            if counted is not None and usage.input_tokens:
                self.pairs.append((counted, usage.input_tokens))
            if entry.status == "ok":
                self._outputs.update(usage.output_tokens)
                self.recent.append(usage.output_tokens)
                self.thoughts.append(usage.get("reasoning", 0))

    def adopt(self, kept: Kept) -> None:
        """Takes over what somebody else has learned, where nothing was learned here."""
        with self._lock:
            if not self.pairs:
                self.pairs.extend(kept.pairs)
                self.recent.extend(kept.outputs)
                self.thoughts.extend(kept.reasoning)
                self._outputs.extend(kept.outputs)

    def begin(self) -> tuple[Lesson, bool]:
        """The lesson under way, and whether it has begun with this call."""
        with self._lock:
            if self.lesson is not None:
                return self.lesson, False
            self.lesson = Lesson()
            return self.lesson, True

    def end(self, lesson: Lesson) -> None:
        """A lesson has ended; the next call that is not known of begins another."""
        with self._lock:
            if self.lesson is lesson:
                self.lesson = None

    def kept(self, now: float) -> Kept:
        """The site as the ledger keeps it."""
        with self._lock:
            return Kept(int(now), tuple(self.pairs), tuple(self.recent), tuple(self.thoughts))


def _surplus(here: int, there: int, counted: int) -> int:
    more = max(0, there - here)
    return more if counted <= 2 * here or not here else -(-more * counted // (2 * here))


class Lesson:
    """The first call of a site on its way: others of the site may wait until it has taught what it can."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] | None = []

    def when_over(self, callback: Callable[[], None]) -> bool:
        """Calls back when the lesson is over; False, and no call, if it is over already."""
        with self._lock:
            if self._waiting is None:
                return False
            self._waiting.append(callback)
            return True

    def over(self) -> None:
        """The lesson is over, with or without a result."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for callback in waiting or ():
            callback()


class Sites:
    """The call sites of a ledger, as this process knows them. `clock` gives seconds since 1970, `random` bytes."""

    def __init__(
        self,
        shelf: Shelf,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._shelf = shelf
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._loading = threading.Lock()
        self._key: bytes | None = None
        self._dirty: set[str] = set()
        self._names: dict[tuple[str, ...], str] = {}

    def load(self) -> None:
        """Reads the key and what other processes have learned. Raises LedgerError."""
        if self._key is not None:
            return
        with self._loading:
            if self._key is not None:
                return
            key = ensure_key(self._shelf, self._random)
            known = self._shelf.states(NAMESPACE)
            found = {name: kept for name, row in known.items() if (kept := _read(row)) is not None}
            newest = sorted(found, key=lambda name: found[name].at)
            for name in newest[: max(0, len(newest) - MOST_SITES)]:
                self._shelf.state(NAMESPACE, name, None)
            with self._lock:
                for name in newest[-MOST_SITES:]:
                    self._sites.setdefault(name, Site(found[name]))
            self._key = key

    def key_again(self) -> None:
        """Reads the key again: where two processes made one at the same time, the later one stands. Raises
        LedgerError."""
        key = ensure_key(self._shelf, self._random)
        if key != self._key:
            self._key = key
            self._names.clear()

    def digest(self, *parts: bytes) -> str:
        """A keyed hash, the same for the same parts in all processes of a ledger; says nothing to others."""
        text = b"".join([one for part in parts for one in (len(part).to_bytes(8, "big"), part)])
        return hmac.digest(self._key or b"", text, "sha256").hex()[:24]

    def name_of(self, facts: RequestFacts, tags: Mapping[str, str], *, system: bool = True) -> str:
        """The call site that a request comes from: provider, model, agent or run name, system text and tools. `system`
        False says that there is no such text."""
        who = (tags.get("agent") or tags.get("run_name") or "") if tags else ""
        text = facts.system() if system else ""
        parts = (facts.provider, facts.model or "", facts.api, who, text, *facts.tools)
        name = self._names.get(parts)
        if name is None:
            name = self.digest(*[part.encode("utf-8", "surrogatepass") for part in parts])
            if len(self._names) >= MOST_SITES:
                self._names.clear()
            if sum(map(len, parts)) <= SHORT:
                self._names[parts] = name
        return name

    def site(self, name: str) -> Site:
        """A call site, new or known."""
        with self._lock:
            found = self._sites.get(name)
            if found is None:
                found = self._sites[name] = Site()
                if len(self._sites) > MOST_SITES:
                    self._sites.popitem(last=False)
            self._sites.move_to_end(name)
            return found

    def ask_ledger(self, name: str, site: Site) -> None:
        """Takes in what other processes may have learned of a call site meanwhile. Raises LedgerError."""
        kept = _read(self._shelf.state(NAMESPACE, name))
        if kept is not None:
            site.adopt(kept)

    def due(self, name: str, site: Site) -> bool:
        """Whether a site that has learned should be written now: at once the first time, later now and then."""
        now = self._clock()
        with self._lock:
            self._dirty.add(name)
            if now - site.written < WRITE_SECONDS:
                return False
            site.written = now
            return True

    def write(self, *names: str) -> None:
        """Writes sites into the ledger; without names all that have changed. Raises LedgerError."""
        with self._lock:
            chosen = [name for name in names or tuple(self._dirty) if name in self._sites]
            self._dirty.difference_update(chosen)
            rows = {name: self._sites[name] for name in chosen}
        for name, site in rows.items():
            self._shelf.state(NAMESPACE, name, msgspec.json.encode(site.kept(self._clock())).decode())


def ensure_key(shelf: Shelf, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """The ledger's key for hashes, made where there is none yet. Raises LedgerError."""
    text = shelf.state(NAMESPACE, KEY_NAME)
    if text is None:
        shelf.state(NAMESPACE, KEY_NAME, random(_KEY_BYTES).hex())
        text = shelf.state(NAMESPACE, KEY_NAME)
    return bytes.fromhex(text or "00")


def _read(row: str | None) -> Kept | None:
    if row is None:
        return None
    try:
        return _decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
