"""Waiting: a progress bar on standard error for a reading that takes longer than a moment."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE: Final = 0.7
"""After so many seconds the bar is shown."""


class Waiting:
    """A bar on a terminal; nothing elsewhere. `step` is told how much is done, from 0 to 1 (None: unknown). Ctrl-C ends
    the reading between two steps."""

    def __init__(self, words: str) -> None:
        self._words = words
        self._begun = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, share: float | None) -> None:
        """So much is done."""
        if self._progress is None:
            if time.monotonic() - self._begun < _PATIENCE or not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(self._words, total=None if share is None else 1.0)
            self._progress.start()
        self._progress.update(self._task, completed=share)
