"""Patching: methods of other packages' classes, changed for the whole process and put back."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Final

_OURS: Final = "tallystick_original"


class Patches:
    """Methods that were changed. Changing one twice is harmless; `undo` puts all back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[tuple[type, str], Any] = {}

    def wrap(self, kind: type, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Puts `around(original)` in the place of a method that the class itself defines."""
        with self._lock:
            original = vars(kind).get(name)
            if original is None or hasattr(original, _OURS):
                return
            changed = functools.wraps(original)(around(original))
            setattr(changed, _OURS, original)
            self._done[kind, name] = original
            setattr(kind, name, changed)

    def undo(self) -> None:
        """Puts all methods back, the last one first."""
        with self._lock:
            for (kind, name), original in reversed(self._done.items()):
                setattr(kind, name, original)
            self._done.clear()

    def __len__(self) -> int:
        return len(self._done)
