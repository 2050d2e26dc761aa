"""Book: the calls found in one scan of one tool, each once, however many lines and files tell of it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final

import msgspec

from tallystick.wire.logs.lines import ABSURD, LogCall, merged

EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(days=2)
_MOST_REMEMBERED: Final = 5000
"""A side chain copies responses while its session runs, so it is enough to remember the latest ones."""

_ASIDE: Final = "~"


class Book:
    """Calls by their key. `refused` counts what could not be taken, by reason, with the file where it was met first;
    no call can be later than `latest`.

    `recent` is what an earlier scan's `remembered` gave.
    """

    def __init__(self, now: datetime, recent: dict[str, str] | None = None) -> None:
        self.calls: dict[str, LogCall] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self._recent = recent or {}
        self.latest = now + AHEAD
        self._asides = any(key.startswith(_ASIDE) for key in self._recent.values())

    def add(self, call: LogCall, file: str) -> None:
        """Takes a sighting of a call."""
        if not EARLIEST <= call.at <= self.latest:
            self.refuse(ABSURD, file)
            return
        known = self.calls.get(call.key)
        self.calls[call.key] = call if known is None else merged(call, known)
        if call.aside:
            self._asides = True

    def refuse(self, why: str, file: str, count: int = 1) -> None:
        """Counts what could not be taken."""
        before, first = self.refused.get(why, (0, file))
        self.refused[why] = before + count, first

    def settle(self) -> None:
        """Makes one call of a response that the main thread and a side chain tell of under different request ids."""
        if not self._asides:
            return
        groups: dict[str, list[LogCall]] = {}
        for call in self.calls.values():
            if call.response_id:
                groups.setdefault(call.response_id, []).append(call)
        for response, found in groups.items():
            standing = self._recent.get(_short(response)) if self._recent else None
            if len(found) > 1 or standing is not None:
                self._fold(found, standing)

    def remembered(self) -> dict[str, str]:
        """What the next scan has to know of this one: the keys of the latest responses, by a hash of their ids."""
        latest = sorted([call for call in self.calls.values() if call.response_id], key=attrgetter("at"))
        new = {
            _short(call.response_id or ""): f"{_ASIDE if call.aside else ''}{call.key}"
            for call in latest[-_MOST_REMEMBERED:]
        }
        kept = {**self._recent, **new, **self._recent}
        return dict(list(kept.items())[-_MOST_REMEMBERED:])

    def _fold(self, found: list[LogCall], standing: str | None) -> None:
        main = sorted(call.key for call in found if not call.aside)
        first = main[0] if main else min(call.key for call in found)
        home = first if standing is None else standing.lstrip(_ASIDE)
        # What stands in the ledger as a side chain's is the main thread's first sighting, whatever its request id.
        adopted = main[0] if main and standing is not None and standing.startswith(_ASIDE) else None
        for call in found:
            if call.key != home and (call.aside or call.key == adopted):
                del self.calls[call.key]
                moved = msgspec.structs.replace(call, key=home)
                self.calls[home] = merged(moved, self.calls[home]) if home in self.calls else moved


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
