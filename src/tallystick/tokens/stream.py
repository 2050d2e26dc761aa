"""StreamCounter: the exact token count of a text that arrives in pieces, at a cost that does not grow with the text."""

from __future__ import annotations

from typing import Final

from tallystick.tokens.encodings import Encoding

# Below this many waiting bytes a recount is not worth its fixed cost.
_WAIT: Final = 4096


class StreamCounter:
    """Counts a text while it arrives. `tokens` equals `encoding.count` of everything fed so far, however it was cut.

    What lies left of the last safe cut is counted once and forgotten; only the tail behind it is kept, and it is
    looked at again when it has doubled or when somebody asks. Not for use by two threads at once.
    """

    __slots__ = ("_committed", "_encoding", "_goal", "_parts", "_tail_tokens", "_waiting")

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._parts: list[str] = []
        self._committed = 0
        self._waiting = 0
        self._tail_tokens: int | None = 0
        self._goal = _WAIT

    def feed(self, delta: str) -> None:
        """Take the next piece of the text, of any length and cut anywhere."""
        if not delta:
            return
        self._parts.append(delta)
        self._tail_tokens = None
        self._waiting += len(delta) if delta.isascii() else len(delta.encode("utf-8", "surrogatepass"))
        if self._waiting >= self._goal:
            self._commit()
            self._goal = max(_WAIT, 2 * self._waiting)

    def _commit(self) -> str:
        text = "".join(self._parts)
        cut = self._encoding.boundaries.last(text)
        if cut:
            self._committed += self._encoding.count(text[:cut])
            text = text[cut:]
            self._waiting = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self._parts = [text]
        return text

    @property
    def tokens(self) -> int:
        """The exact number of tokens of everything fed so far."""
        if self._tail_tokens is None:
            self._tail_tokens = self._encoding.count(self._commit())
        return self._committed + self._tail_tokens

    @property
    def upper(self) -> int:
        """A number of tokens the text fed so far cannot exceed, without counting: a token has at least one byte."""
        return self._committed + (self._waiting if self._tail_tokens is None else self._tail_tokens)

    def close(self) -> int:
        """The final exact count; the kept text is dropped. What is fed afterwards is a new text, added to it."""
        total = self.tokens
        self._committed, self._tail_tokens, self._parts, self._waiting = total, 0, [], 0
        return total
