"""Claude Code: the transcripts under `projects/`.

One response is several lines, one per content block, each with a usage; they share message.id and requestId, and the
largest usage is the final one. Resumed sessions copy lines into new files. Until 2.1.97 the lines could carry the
placeholder of the stream's start instead of the final counts (release notes of 2.1.97 and 2.1.98), so what they say is
a lower bound.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from tallystick.errors import UsageError
from tallystick.wire.anthropic import MessageUsage, message_usage
from tallystick.wire.format import Format
from tallystick.wire.logs.lines import LogCall, joined, lenient, merged
from tallystick.wire.reading import Reading

NEEDLE: Final = b'"output_tokens"'
"""No line without this tells of a call: every usage states its output. Longer words are found faster."""

FINAL_SINCE: Final = (2, 1, 97)
"""The first version whose lines carry the final counts."""

NO_PROJECTS: Final[Mapping[str | None, str]] = {}

SYNTHETIC: Final = "<synthetic>"
_VERSION: Final = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")


class LoggedMessage(msgspec.Struct, frozen=True, gc=False):
    """The message of a line."""

    id: str | None = None
    model: str | None = None
    usage: MessageUsage | None = None


class ClaudeLine(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The parts of a line that tell of a call."""

    timestamp: datetime | None = None
    session_id: str | None = None
    request_id: str | None = None
    agent_id: str | None = None
    uuid: str | None = None
    version: str | None = None
    cwd: str | None = None
    is_sidechain: bool | None = None
    message: LoggedMessage | None = None


_DECODE: Final = msgspec.json.Decoder(ClaudeLine).decode


def read_line(line: bytes, place: str, projects: Mapping[str | None, str] = NO_PROJECTS) -> LogCall | None:
    """The call that a line tells of, or None. `place` names a line that has no message id, and must be the same each
    time the line is read; `projects` gives the project of a working directory. Raises UsageError for a line that cannot
    be read."""
    return call_of(decoded(line), place, projects)


def decoded(line: bytes) -> ClaudeLine:
    """A line as its parts. Raises UsageError for one that cannot be read."""
    try:
        return _DECODE(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return lenient(line, ClaudeLine)


def call_of(line: ClaudeLine, place: str, projects: Mapping[str | None, str] = NO_PROJECTS) -> LogCall | None:
    """The call of a decoded line, or None where it tells of none."""
    message = line.message
    if message is None or message.usage is None or message.model == SYNTHETIC or line.timestamp is None:
        return None
    usage, identity, request, session, agent = (
        message.usage, message.id, line.request_id, line.session_id, line.agent_id
    )  # fmt: skip
    return LogCall(
        key_of(identity, request) if identity else f"line {line.uuid or ''} {place}",
        line.timestamp,
        message.model or "unknown",
        usage,
        size_of(usage),
        line.is_sidechain is True,
        None,
        None,
        line.cwd if projects is NO_PROJECTS else projects[line.cwd],
        session,
        agent,
        session if agent else None,
        request,
        identity or None,
        quality_of(line.version),
    )


def key_of(identity: str, request: str | None) -> str:
    """The key of a call whose message has an id."""
    return f"{identity} {request or ''}"


def size_of(usage: MessageUsage) -> int:
    """All tokens of a usage."""
    written = usage.cache_creation_input_tokens
    if written is None:
        split = usage.cache_creation
        written = 0 if split is None else split.ephemeral_5m_input_tokens + split.ephemeral_1h_input_tokens
    return usage.input_tokens + usage.output_tokens + (usage.cache_read_input_tokens or 0) + written


@functools.lru_cache(maxsize=256)
def quality_of(version: str | None) -> str:
    """How far the counts of a version can be trusted: exact, or a lower bound."""
    return "exact" if final_counts(version) else "lower_bound"


def final_counts(version: str | None) -> bool:
    """Whether this version of the tool wrote final counts; no for one that is not stated."""
    found = _VERSION.match(version or "")
    return found is not None and tuple(map(int, found.groups())) >= FINAL_SINCE


def reading_of(call: LogCall) -> Reading:
    """What a call's usage says."""
    reading = message_usage(call.usage)
    return Reading(reading.usage, call.model, reading.context, None, None, call.response_id, reading.fault)


def lines_usage(lines: list[ClaudeLine]) -> Reading:
    """Reads the lines of one call or of several, which are added up."""
    calls: dict[str, LogCall] = {}
    for number, line in enumerate(lines):
        call = call_of(line, str(number))
        if call is not None:
            known = calls.get(call.key)
            calls[call.key] = call if known is None else merged(call, known)
    return joined([reading_of(call) for call in calls.values()])


def lines_body(lines: list[ClaudeLine]) -> Reading:
    """Reads a JSON array of lines."""
    try:
        return lines_usage(lines)
    except UsageError:
        return Reading(None)


FORMATS: Final = {
    # A transcript is nobody's API: whose model it was has to be looked up by its name.
    "log.claude_code": Format((), list[ClaudeLine], list[ClaudeLine], lines_usage, lines_body, ((),)),
}
"""The readers of this family, by API."""
