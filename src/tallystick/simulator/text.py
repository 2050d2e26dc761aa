"""Text: what a simulated model says, how many tokens it is, and in which pieces it comes."""

from __future__ import annotations

import re
import zlib
from typing import Final

from tallystick.tokens import count_text, encoding, encoding_for

WORDS: Final = (
    "the", "of", "and", "to", "in", "is", "for", "that", "on", "with", "as", "are", "be", "by", "this", "it",
    "from", "or", "have", "not", "can", "all", "more", "one", "time", "which", "about", "when", "there", "what",
    "some", "only", "other", "into", "its", "two", "first", "then", "out", "so", "people", "work", "long", "over",
    "most", "after", "made", "day", "between", "place", "old", "number", "part", "world", "house", "small",
    "point", "end", "side", "four", "hand", "light", "line", "high", "water", "while", "found", "still", "learn",
    "should", "never", "each", "leave", "city", "tree", "cross", "hard", "start", "story", "far", "sea", "late",
    "run", "left", "press", "close", "night", "real", "life", "few", "north", "open", "next", "white", "begin",
    "paper", "group", "always",
)  # fmt: skip
"""Each is one token with a space before it, and as the first word too, in the encodings that are bundled."""

_PIECE: Final = re.compile(r"\s*\S+(?:\s+\Z)?|\s+\Z")
_YARDSTICK: Final = "o200k_base"


def generated(tokens: int, seed: int) -> str:
    """A text of exactly that many tokens; the same seed says the same."""
    chosen = (WORDS[zlib.crc32(b"%d:%d" % (seed, place)) % len(WORDS)] for place in range(tokens))
    return " ".join(chosen)


def counted(text: str, model: str) -> int:
    """The tokens of a text: by the model's own tokenizer where it is known, else the likely number."""
    return count_text(text, model).tokens if text else 0


def shortened(text: str, tokens: int, model: str) -> str:
    """The first tokens of a text, whole characters only."""
    ours = encoding(encoding_for(model) or _YARDSTICK)
    kept = b"".join(ours.token_bytes(token) for token in ours.encode(text)[:tokens])
    return kept.decode("utf-8", "ignore")


def pieces(text: str, chunks: int | None, words: int) -> tuple[str, ...]:
    """A text in the pieces in which it is streamed: `chunks` equal ones, or pieces of so many words."""
    if not text:
        return ()
    if chunks is not None:
        size = max(1, -(-len(text) // max(1, chunks)))
        return tuple(text[start : start + size] for start in range(0, len(text), size))
    found = _PIECE.findall(text)
    step = max(1, words)
    return tuple("".join(found[start : start + step]) for start in range(0, len(found), step))
