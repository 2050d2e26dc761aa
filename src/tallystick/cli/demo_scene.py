"""Scene: one call of the play of `tally demo`, and what the simulated provider says to it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tallystick.simulator import Answer
from tallystick.simulator.text import generated


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the play; the fields are explained in its data."""

    run: tuple[str, ...]
    step: str
    provider: str
    model: str
    stream: bool
    asks: str
    says: str
    memory: int = 0
    cached: int = 0
    first_ms: float = 0
    pieces_ms: float = 0
    fails: int = 0
    breaks_after: int | None = None
    together: bool = False
    max_cost: str | None = None

    @property
    def prompt(self) -> str:
        """What the model is asked, with the notes that go along."""
        notes = f"\n\nNotes: {generated(self.memory, len(self.asks))}" if self.memory else ""
        return f"{self.asks}{notes}"

    def answer(self, *, fast: bool) -> Answer:
        """What the simulator says to it."""
        slow = 0.0 if fast else 1.0
        return Answer(
            status=500 if self.fails else 200, failures=self.fails or None, headers={"retry-after-ms": "300"},
            text=self.says, cached_tokens=self.cached, first_byte_ms=slow * self.first_ms,
            chunk_ms=slow * self.pieces_ms, cut_after=self.breaks_after,
        )  # fmt: skip


def script() -> tuple[str, tuple[Scene, ...]]:
    """The question and the scenes, from the data file."""
    text = (Path(__file__).parent / "data" / "demo.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    return found["question"], msgspec.convert(found["call"], tuple[Scene, ...])


def together(scenes: Sequence[Scene]) -> Iterator[list[Scene]]:
    """The scenes in their order, those that are made at the same time in one list."""
    group: list[Scene] = []
    for scene in scenes:
        if group and not scene.together:
            yield group
            group = []
        group.append(scene)
    yield group
