"""Gemini CLI: the chats under `tmp/<project>/chats/`, one JSON document or one JSON object a line.

Thoughts and tool prompts are added, cached tokens are inside input where the total says so (it always has, but some
writers left them out). A message is written again when it grows; the fullest stands.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from tallystick.wire.gemini import GeminiUsage, gemini_usage
from tallystick.wire.logs.lines import LogCall, converted, lenient
from tallystick.wire.partition import Count
from tallystick.wire.reading import Reading

NEEDLES: Final = (b'"tokens"', b'"sessionId"')
"""No line without one of these matters."""


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """The counts of a message."""

    input: Count = 0
    output: Count = 0
    cached: Count = 0
    thoughts: Count = 0
    tool: Count = 0
    total: Count | None = None


class Message(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A message, or the first line of a chat."""

    type: str = ""
    id: str | None = None
    session_id: str | None = None
    timestamp: datetime | None = None
    model: str | None = None
    tokens: Tokens | None = None


class Chat(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A chat as one document. Messages stay undecoded, so that a bad one does not hide the others."""

    session_id: str | None = None
    messages: list[msgspec.Raw] = []


_MESSAGE: Final = msgspec.json.Decoder(Message).decode


def read_message(line: bytes) -> Message:
    """A message of a chat. Raises UsageError for one that cannot be read."""
    try:
        return _MESSAGE(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return lenient(line, Message)


def read_chat(document: bytes) -> tuple[str | None, list[bytes]]:
    """A chat's session and its messages. Raises UsageError for what is no chat."""
    try:
        chat = msgspec.json.decode(document, type=Chat)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        chat = converted(lenient(document, dict), Chat)
    return chat.session_id, [bytes(message) for message in chat.messages]


def call_of(message: Message, session: str | None, project: str | None) -> LogCall | None:
    """The call that a message tells of, or None."""
    tokens = message.tokens
    if message.type != "gemini" or tokens is None or message.timestamp is None:
        return None
    size = max(tokens.total or 0, tokens.input + tokens.output + tokens.thoughts + tokens.tool)
    if not size:
        return None
    return LogCall(
        key=message.id or f"{session} {message.timestamp.isoformat()}",
        at=message.timestamp,
        model=message.model or "unknown",
        usage=tokens,
        size=size,
        project=project,
        session=session,
    )


def reading_of(call: LogCall) -> Reading:
    """What a call's usage says."""
    tokens: Tokens = call.usage
    prompt = tokens.input
    stated = prompt + tokens.output + tokens.thoughts + tokens.tool
    if tokens.cached and tokens.total == stated + tokens.cached:
        prompt += tokens.cached
    reading = gemini_usage(
        GeminiUsage(
            prompt_token_count=prompt,
            cached_content_token_count=tokens.cached,
            candidates_token_count=tokens.output,
            thoughts_token_count=tokens.thoughts,
            tool_use_prompt_token_count=tokens.tool,
            total_token_count=tokens.total,
        )
    )
    return Reading(reading.usage, call.model, reading.context, fault=reading.fault)
