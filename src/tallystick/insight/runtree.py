"""Run tree: one run with its steps and the runs below it, and what each cost by itself and with all below it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from tallystick.insight.blocks import added
from tallystick.insight.spend import total_json
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Query, Total, Totals

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

SILENCE: Final = timedelta(hours=1)
"""A run below another one is looked for up to so long after the last call of the tree."""

READ_UP_TO: Final = 20_000
ORPHANS: Final = 2_000
"""Among so many of the newest calls a run is looked for that made none itself."""

CALLS: Final = 1_000
DEPTH: Final = 50


class RunNode:
    """One run: its calls by step, and the runs below it."""

    def __init__(self, run_id: str, parent: str | None) -> None:
        self.run_id = run_id
        self.parent = parent
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.calls: list[str] = []
        self.below: list[RunNode] = []
        self._steps: dict[str | None, Totals] = {}
        self._models: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Takes in one call of the run."""
        self.parent = self.parent or entry.parent_run
        self.started_at = min(self.started_at or entry.started_at, entry.started_at)
        end = entry.settled_at or entry.started_at
        self.ended_at = max(self.ended_at or end, end)
        self._models.add(entry.model)
        if len(self.calls) < CALLS:
            self.calls.append(entry.call_id)
        self._steps.setdefault(entry.step, Totals((), None)).add_entry(entry)

    @property
    def steps(self) -> dict[str | None, Total]:
        """The sum of each step, in the order of their first calls; None: calls outside any."""
        return {name: totals.rows()[0] for name, totals in self._steps.items()}

    @property
    def direct(self) -> Total:
        """The sum of the run's own calls."""
        return _sum(self.steps.values())

    @property
    def inclusive(self) -> Total:
        """The sum of the run's own calls and of all runs below it."""
        return _sum([self.direct, *(node.inclusive for node in self.below)])

    def to_json(self) -> dict[str, Any]:
        """The tree as plain JSON values."""
        direct = self.direct
        return {
            "run_id": self.run_id,
            "parent_run": self.parent,
            "started_at": None if self.started_at is None else rfc3339(self.started_at),
            "ended_at": None if self.ended_at is None else rfc3339(self.ended_at),
            "models": sorted(self._models),
            "direct": total_json(direct),
            "inclusive": total_json(self.inclusive),
            "steps": [{"step": name, "total": total_json(total)} for name, total in self.steps.items()],
            "calls": self.calls,
            "calls_left_out": direct.calls - len(self.calls),
            "runs": [node.to_json() for node in self.below],
        }


def run_tree(ledger: Ledger, run_id: str) -> tuple[RunNode, bool] | None:
    """The tree below a run, and whether it is surely complete; None where no call bears that run. Runs below it are
    those whose calls name it, or one below it, as their parent, and that begin within an hour of the tree's last call.
    Raises LedgerError."""
    root = RunNode(run_id, None)
    for entry in ledger.read(Query(run_id=run_id)):
        root.add(entry)
    if root.started_at is None or root.ended_at is None:
        return _orphan(ledger, run_id)
    nodes, complete = _nearby(ledger, root)
    found = {run_id: root}
    waiting, depth = [root], 0
    while waiting:
        depth += 1
        following = []
        for node in waiting:
            for child in nodes.get(node.run_id, {}).values():
                if child.run_id not in found:
                    found[child.run_id] = child
                    node.below.append(child)
                    following.append(child)
        if depth >= DEPTH and following:
            for node in waiting:
                node.below.clear()
            return root, False
        waiting = following
    return root, complete


def _nearby(ledger: Ledger, root: RunNode) -> tuple[dict[str, dict[str, RunNode]], bool]:
    """Runs with a parent, by their parent, whose calls are near the root's in time."""
    nodes: dict[str, dict[str, RunNode]] = {}
    tree = {root.run_id}
    end = root.ended_at
    assert end is not None
    count = 0
    for entry in ledger.read(Query(since=root.started_at)):
        if entry.started_at > end + SILENCE:
            break
        count += 1
        if count > READ_UP_TO:
            return nodes, False
        run, parent = entry.run_id, entry.parent_run
        if run is None or parent is None or run == root.run_id:
            continue
        nodes.setdefault(parent, {}).setdefault(run, RunNode(run, parent)).add(entry)
        if parent in tree or run in tree:
            tree.add(run)
            end = max(end, entry.settled_at or entry.started_at)
    return nodes, True


def _orphan(ledger: Ledger, run_id: str) -> tuple[RunNode, bool] | None:
    """A run that made no call itself, but whose name others bear as their parent, among the newest calls."""
    root = RunNode(run_id, None)
    below: dict[str, RunNode] = {}
    for entry in ledger.read(Query(limit=ORPHANS, newest_first=True)):
        if entry.parent_run == run_id and entry.run_id is not None and entry.run_id != run_id:
            below.setdefault(entry.run_id, RunNode(entry.run_id, run_id)).add(entry)
    if not below:
        return None
    root.below = sorted(below.values(), key=lambda node: rfc3339(node.started_at) if node.started_at else "")
    return root, False


def _sum(totals: Iterable[Total]) -> Total:
    whole = Total(group={})
    for total in totals:
        whole = added(whole, total)
    return whole
