"""Where a text may be cut so that the parts have exactly as many tokens as the whole.

A tokenizer of this kind first splits the text into pretokens with a pattern and then merges bytes inside each of
them. A cut is safe when no pretoken can span it and the pattern reads the left part alone as it reads it in the whole
(look-ahead included). Whether that holds is decided here from the two characters beside the cut, never from more, so
a safe cut stays safe whatever text follows later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# White_Space of Unicode without carriage return and line feed. `\s` of the standard library also has U+001C..U+001F,
# which the tokenizers take for ordinary characters, so the class is spelled out.
_BLANK: Final = "\t\x0b\x0c \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE: Final = _BLANK + "\r\n"

# Punctuation and symbols that begin a new pretoken after a letter or a number. The apostrophe is missing on purpose: it
# may belong to a contraction. No letter, mark or number is in these ranges.
_MARKER: Final = (
    r"!-&(-/:-@\[-`{-~\u00a1-\u00a9\u00ab\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7"
    r"\u060c\u061b\u061f\u06d4\u0964\u0965\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011\u3014-\u301f"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f900-\U0001f9ff"
)
_PLAIN_LETTER: Final = "A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"

# No pattern lets white space follow anything else inside one pretoken, except line breaks after punctuation.
_BEFORE_BLANK: Final = f"(?<=[^{_SPACE}])(?=[{_BLANK}])"
_BEFORE_ANY_SPACE: Final = f"(?<=[^{_SPACE}])(?=[{_SPACE}])"
# A run of white space that ends in a line break is one pretoken, or belongs to the punctuation before it (which may
# go on with a slash). This does not hold for the oldest pattern, which gives its last character to what follows.
_AFTER_BREAK: Final = f"(?<=[\r\n])(?=[^{_SPACE}/])"
_BEFORE_MARKER: Final = rf"(?<=[^\W_])(?=[{_MARKER}])"
_LETTER_NUMBER: Final = f"(?<=[{_PLAIN_LETTER}])(?=[0-9])|(?<=[0-9])(?=[{_PLAIN_LETTER}])"

_RULES: Final = {
    "modern": f"{_BEFORE_BLANK}|{_BEFORE_MARKER}|{_AFTER_BREAK}|{_LETTER_NUMBER}",
    "classic": f"{_BEFORE_ANY_SPACE}|{_LETTER_NUMBER}",
}


class Boundaries:
    """The safe cuts of one kind of pattern: `modern` (o200k, cl100k) or `classic` (p50k, r50k).

    Raises `KeyError` for another kind.
    """

    __slots__ = ("_first", "_last", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._first = re.compile(_RULES[kind])
        # The greedy dot runs to the end at once and comes back one character at a time, so the search costs the
        # distance of the cut from the end of the text, not its length.
        self._last = re.compile(f"(?s:.*)(?:{_RULES[kind]})")

    def last(self, text: str, start: int = 0, end: int | None = None) -> int:
        """The rightmost safe cut in `text[start:end]` as an index into `text`; `start` if there is none."""
        found = self._last.match(text, start, len(text) if end is None else end)
        # A cut at `start` itself would look at a character before it; the caller gains nothing from it.
        return found.end() if found is not None and found.end() > start else start

    def next(self, text: str, start: int) -> int:
        """The leftmost safe cut right of `start` as an index into `text`; its length if there is none."""
        found = self._first.search(text, start + 1)
        return found.start() if found is not None else len(text)

    def chunks(self, text: str, size: int) -> Iterator[str]:
        """Cut `text` safely into parts of at most `size` characters; longer only where no safe cut exists."""
        start, length = 0, len(text)
        while length - start > size:
            cut = self.last(text, start, start + size)
            if cut == start:
                cut = self.next(text, start + size - 1)
            yield text[start:cut]
            start = cut
        if start < length:
            yield text[start:]
