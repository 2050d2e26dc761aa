"""Counting: how many tokens a delivered text has, where the provider did not say."""

from __future__ import annotations

import threading
from typing import Final

from tallystick.tokens.chat import count_messages
from tallystick.tokens.count import count_text, utf8_length
from tallystick.tokens.encodings import encoding, encoding_for
from tallystick.tokens.stream import StreamCounter
from tallystick.wire.facts import RequestFacts

FOLD_BYTES: Final = 2**18
"""Text that may wait before it is counted, so that a long answer does not stay in memory."""

_ARGUMENT_BYTES: Final = 8
"""Arguments of tools are counted at this many bytes a token. They are JSON, of which tokenizers make tokens of about 3
bytes, and words of more than 8 are rare in it: a count from below."""


class Delivered:
    """The text of one answer as it was handed over. Nothing is counted before somebody asks. Whoever hears the text
    adds its `pieces`."""

    __slots__ = ("_counter", "_high", "_low", "_model", "_waiting", "pieces", "text_bytes", "unseen_bytes")

    def __init__(self, model: str | None) -> None:
        self._model = model
        self.pieces: list[str] = []
        self._waiting = 0
        self._counter: StreamCounter | None = None
        self._low = self._high = 0
        self.text_bytes = 0
        self.unseen_bytes = 0

    def add(self, size: int) -> None:
        """Pieces have come: the length in UTF-8 of all that was generated with them, tool arguments included."""
        self.text_bytes += size
        self._waiting += size
        if self._waiting >= FOLD_BYTES:
            self._fold()

    @property
    def upper(self) -> int:
        """A number of tokens that the answer cannot exceed, without counting: a token has at least one byte."""
        return self.text_bytes

    @property
    def rough(self) -> int:
        """About how many tokens, without counting."""
        return self.text_bytes // 4

    def tokens(self) -> int:
        """The tokens of the text: exact where the model's tokenizer is known, else the least they can be; and tool
        arguments from below."""
        self._fold()
        counted = self._low if self._counter is None else self._counter.tokens
        return counted + self.unseen_bytes // _ARGUMENT_BYTES

    def most(self) -> int:
        """What the answer does not exceed, after counting what can be counted."""
        self._fold()
        return (self._high if self._counter is None else self._counter.tokens) + self.unseen_bytes

    def _encoding(self) -> str | None:
        return None if self._model is None else encoding_for(self._model)

    def _fold(self) -> None:
        if not self._waiting:
            return
        text = "".join(self.pieces)
        size = utf8_length(text)
        self.unseen_bytes += max(0, self._waiting - size)
        self.pieces.clear()
        self._waiting = 0
        name = self._encoding()
        if name is None:
            count = count_text(text, self._model or "")
            self._low += count.low
            self._high += count.high
            return
        if self._counter is None:
            self._counter = StreamCounter(encoding(name))
        self._counter.feed(text)


_WARM: Final[set[str]] = set()


def warm(model: str | None) -> None:
    """Loads a model's tokenizer in a thread of its own, so that a stream does not have to wait for it when its limit
    comes near."""
    name = encoding_for(model or "")
    if name is None or name in _WARM:
        return
    _WARM.add(name)
    threading.Thread(target=encoding(name).count, args=("a",), name="tallystick-tokenizer", daemon=True).start()


def prompt_tokens(facts: RequestFacts, *, most: bool = False) -> int:
    """The tokens of a request's prompt, from below, or with `most` from above."""
    payload = facts.payload()
    system = [payload[key] for key in ("system", "instructions", "systemInstruction") if key in payload]
    messages = [payload[key] for key in ("messages", "input", "contents", "prompt") if key in payload]
    count = count_messages(
        messages[0] if len(messages) == 1 else messages, facts.model or "", payload.get("tools"), system or None
    )
    return count.high if most else count.low
