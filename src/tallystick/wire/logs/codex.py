"""Codex: the rollouts under `sessions/`.

A `token_count` states the session's cumulative total and the last response's usage. An unchanged total is a refresh of
the screen, a total that falls is a counter that began anew. A session that was forked, or spawned as a sub-agent,
begins with a copy of its parent's history, whose counts belong to the parent. Cached and cache-written tokens are
inside input, reasoning is inside output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from tallystick.errors import UsageError
from tallystick.wire.context import tiers
from tallystick.wire.format import Format
from tallystick.wire.logs.lines import LogCall, biller, joined, lenient
from tallystick.wire.partition import Count, InputDetails, OutputDetails, partition
from tallystick.wire.reading import Reading

HEAD: Final = 240
"""The type of a line stands within its first bytes."""

_MOST: Final = b'"response_item"'
_EMPTY: Final = 2
_BURST: Final = timedelta(seconds=2)
_REMEMBERED: Final = 32
_V7: Final = "7"

Numbers = tuple[int, int, int, int, int]
"""Input, cached, cache-written, output, reasoning."""

Seen = tuple[Numbers, Numbers | None]
"""A total, and the last response's usage beside it."""

_ZERO: Final[Numbers] = (0, 0, 0, 0, 0)


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """Counts of one response, or of a whole session."""

    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cache_write_input_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_output_tokens: Count = 0

    def numbers(self) -> Numbers:
        """The counts in a fixed order; cached tokens have two names."""
        return (
            self.input_tokens,
            max(self.cached_input_tokens, self.cache_read_input_tokens),
            self.cache_write_input_tokens,
            self.output_tokens,
            self.reasoning_output_tokens,
        )


class Info(msgspec.Struct, frozen=True, gc=False):
    """What a token_count says."""

    total_token_usage: TokenUsage | None = None
    last_token_usage: TokenUsage | None = None
    model: object = None


class Payload(msgspec.Struct, frozen=True, gc=False):
    """The payload of a line. Fields that decide no count are taken as they come."""

    type: object = None
    id: object = None
    forked_from_id: object = None
    parent_thread_id: object = None
    source: Any = None
    cwd: object = None
    model_provider: object = None
    model: object = None
    turn_id: object = None
    started_at: object = None
    thread_settings: Any = None
    info: Info | None = None


class CodexLine(msgspec.Struct, frozen=True, gc=False):
    """A line of a rollout."""

    timestamp: datetime | None = None
    type: str = ""
    payload: Payload | None = None


_DECODE: Final = msgspec.json.Decoder(CodexLine).decode


class Progress(msgspec.Struct, gc=False):
    """How far a rollout has been read: what later lines need to know of earlier ones. Can be kept as JSON."""

    session: str | None = None
    parent: str | None = None
    began: datetime | None = None
    provider: str | None = None
    project: str | None = None
    model: str | None = None
    tier: str | None = None
    turn: str | None = None
    replaying: bool = False
    turns_tell: bool = False
    replayed_at: datetime | None = None
    inherited: Numbers | None = None
    previous: Numbers | None = None
    seen: list[Seen] = []


def matters(line: bytes) -> bool:
    """Whether a line needs to be read at all, told from its head."""
    head = line[:HEAD]
    if _MOST in head:
        return False
    return (
        b"token_count" in head
        or b"turn_context" in head
        or b"task_started" in head
        or b"session_meta" in head
        or b"thread_settings_applied" in head
        or (b'"type"' not in head and len(head) > _EMPTY)
    )


def lines_that_matter(data: bytes, begin: int, end: int) -> Iterator[bytes]:
    """The lines from `begin` to `end`, each of which ends with a newline, that need to be read."""
    find = data.find
    while begin < end:
        # Most lines are messages and tool calls: those are not even copied.
        stop = find(b"\n", begin)
        if find(_MOST, begin, min(stop, begin + HEAD)) < 0 and matters(line := data[begin:stop]):
            yield line
        begin = stop + 1


class Rollout:
    """Reads the lines of one session in their order. `session` names one whose lines do not say, `projects` gives the
    project of a working directory."""

    def __init__(
        self,
        progress: Progress | None = None,
        session: str | None = None,
        projects: Callable[[str | None], str | None] = lambda cwd: cwd,
    ) -> None:
        self._progress = Progress() if progress is None else progress
        self._seen: dict[Seen, None] = dict.fromkeys(self._progress.seen)
        self._session = session
        self._projects = projects

    @property
    def progress(self) -> Progress:
        """How far the rollout has been read."""
        self._progress.seen = list(self._seen)
        return self._progress

    def read_line(self, line: bytes) -> LogCall | None:
        """The call that a line tells of, or None. Raises UsageError for a line that cannot be read."""
        try:
            found = _DECODE(line)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            found = lenient(line, CodexLine)
        return self.read(found)

    def read(self, line: CodexLine) -> LogCall | None:
        """The call that a decoded line tells of, or None."""
        payload = line.payload
        if payload is None:
            return None
        kind = line.type
        if kind == "event_msg":
            kind = payload.type if isinstance(payload.type, str) else ""
        if kind == "token_count":
            return self._count(line.timestamp, payload.info)
        if kind == "session_meta":
            self._meta(line.timestamp, payload)
        elif kind in ("turn_context", "task_started"):
            self._turn(kind, payload)
        elif kind == "thread_settings_applied" and isinstance(payload.thread_settings, dict):
            self._progress.tier = _text(payload.thread_settings.get("service_tier"))
        return None

    def _meta(self, at: datetime | None, payload: Payload) -> None:
        """The first session_meta is the session's own; later ones are copied from a parent."""
        progress = self._progress
        if progress.session is not None:
            return
        progress.session = _text(payload.id) or "unknown"
        progress.parent = _parent(payload)
        progress.began = at
        progress.project = _text(payload.cwd)
        progress.provider = biller(payload.model_provider)
        progress.replaying = progress.parent is not None

    def _turn(self, kind: str, payload: Payload) -> None:
        progress = self._progress
        turn = _text(payload.turn_id)
        if progress.replaying:
            own = self._own_turn(turn, payload.started_at)
            if own is None or not own:
                progress.turns_tell = progress.turns_tell or own is not None
                if own is False:
                    return
            else:
                progress.replaying = False
                progress.inherited = progress.previous
        progress.turn = turn or progress.turn
        if kind == "turn_context":
            progress.model = _text(payload.model) or progress.model

    def _own_turn(self, turn: str | None, started: object) -> bool | None:
        """Whether a turn began after the session did, so that it is not a copied one; None where nothing tells."""
        session_ms, turn_ms = _milliseconds(self._progress.session), _milliseconds(turn)
        if session_ms is not None and turn_ms is not None:
            return turn_ms >= session_ms
        began = self._progress.began
        if began is not None and isinstance(started, int | float) and not isinstance(started, bool):
            return started >= int(began.timestamp())
        return None

    def _copied(self, at: datetime) -> bool:
        """Whether a count of a replay belongs to the parent's history. Copies keep their old times, or carry the time
        at which they were copied, all within a moment; where turns tell, they decide."""
        progress = self._progress
        began = progress.replayed_at or progress.began or at
        if progress.turns_tell or at < began + _BURST:
            progress.replayed_at = max(at, began)
            return True
        progress.replaying = False
        progress.inherited = progress.previous
        return False

    def _count(self, at: datetime | None, info: Info | None) -> LogCall | None:
        if info is None or at is None:
            return None
        progress = self._progress
        total = None if info.total_token_usage is None else info.total_token_usage.numbers()
        last = None if info.last_token_usage is None else info.last_token_usage.numbers()
        copied = progress.replaying and self._copied(at)
        previous = progress.previous
        if total is not None:
            progress.previous = total
            known = self._remember((total, last))
            if copied or known or total == previous or self._inherited(total, last):
                return None
        elif copied:
            return None
        used = last if last is not None else _beyond(total, previous)
        if used == _ZERO or used is None:
            return None
        return self._call(at, used, total, _text(info.model))

    def _remember(self, counted: Seen) -> bool:
        """Whether these very counts were met not long ago. The latest are remembered."""
        seen = self._seen
        known = counted in seen
        if known:
            del seen[counted]
        elif len(seen) >= _REMEMBERED:
            del seen[next(iter(seen))]
        seen[counted] = None
        return known

    def _inherited(self, total: Numbers, last: Numbers | None) -> bool:
        """Whether a total has not yet passed what the parent had used; a session that counts from zero is its own."""
        before = self._progress.inherited
        if before is None or total == last or any(now > then for now, then in zip(total, before, strict=True)):
            self._progress.inherited = None
            return False
        return True

    def _call(self, at: datetime, used: Numbers, total: Numbers | None, model: str | None) -> LogCall:
        progress = self._progress
        return LogCall(
            # Copies of a session (archived, forked with old times) tell of the same call with the same words.
            key=f"{at.timestamp():.6f} {total} {used}",
            at=at,
            model=model or progress.model or "unknown",
            usage=used,
            size=used[0] + used[3],
            aside=progress.parent is not None,
            provider=progress.provider,
            tier=progress.tier,
            project=self._projects(progress.project),
            session=progress.session or self._session,
            parent=progress.parent,
            step=progress.turn,
        )


def reading_of(call: LogCall) -> Reading:
    """What a call's usage says."""
    prompt, cached, written, output, reasoning = call.usage
    inside = InputDetails(cached_tokens=cached, cache_write_tokens=written)
    usage, fault = partition(prompt, output, None, inside, OutputDetails(reasoning_tokens=reasoning))
    return Reading(usage, call.model, tiers(call.tier), fault=fault)


def lines_usage(lines: list[CodexLine]) -> Reading:
    """Reads the lines of a rollout; its calls are added up."""
    rollout = Rollout()
    calls = {call.key: call for call in map(rollout.read, lines) if call is not None}
    return joined([reading_of(call) for call in calls.values()])


def lines_body(lines: list[CodexLine]) -> Reading:
    """Reads a JSON array of lines."""
    try:
        return lines_usage(lines)
    except UsageError:
        return Reading(None)


def _beyond(total: Numbers | None, previous: Numbers | None) -> Numbers | None:
    """What a cumulative total adds to the one before it; all of it where the counter began anew."""
    if total is None or previous is None:
        return total
    parts = tuple([now - then for now, then in zip(total, previous, strict=True)])
    if min(parts) < 0:
        return total
    return (parts[0], parts[1], parts[2], parts[3], parts[4])


def _parent(payload: Payload) -> str | None:
    """Whose history a session begins with."""
    for stated in (payload.forked_from_id, payload.parent_thread_id):
        if isinstance(stated, str) and stated:
            return stated
    found = payload.source
    for name in ("subagent", "thread_spawn", "parent_thread_id"):
        found = found.get(name) if isinstance(found, dict) else None
    return _text(found)


def _milliseconds(identity: str | None) -> int | None:
    """The time in a UUID of version 7."""
    plain = (identity or "").replace("-", "")
    if len(plain) != 32 or plain[12] != _V7:
        return None
    try:
        return int(plain[:12], 16)
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


FORMATS: Final = {"log.codex": Format((), list[CodexLine], list[CodexLine], lines_usage, lines_body, ((),))}
"""The readers of this family, by API."""
