"""Paths: which path of a request may go on to a provider. It has to mean the same to us, to the HTTP client and to the
provider: what is metered must be what is called."""

from __future__ import annotations

import re
from typing import Final

_DOTS: Final = re.compile(r"(?:^|/|%2f)(?:\.|%2e){1,2}(?=/|%2f|$|;)", re.IGNORECASE | re.ASCII)
_ODD: Final = re.compile(
    r"[\\#\x00-\x20\x7f-\uffff]|%(?:0[0-9a-f]|1[0-9a-f]|5c|7f)|%(?![0-9a-f]{2})", re.IGNORECASE | re.ASCII
)


def odd(path: str) -> bool:
    """Whether a path, as it was spelt, holds steps up or down the tree, backslashes, control characters or anything
    else that one reader takes for something and the next one does not."""
    if "%" not in path and "/." not in path and path.isascii() and path.isprintable() and "\\" not in path:
        return "#" in path or " " in path
    return _ODD.search(path) is not None or _DOTS.search(path) is not None
