"""Batch: what is done in one transaction in PostgreSQL, and the doubt that is left when its commit is not confirmed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tallystick.errors import TallyError
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.holds_line import AskJob, HoldTask
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.postgres_shelf import Range, ranges_of
from tallystick.ledger.writer import Job, SettleJob

Outcome = Receipt | TallyError
"""What became of one append."""


class Batch(msgspec.Struct, eq=False):
    """What is done in one transaction: appends, and what concerns holds. `outcomes` are known when the appends are
    written; what concerns holds may be done over again."""

    jobs: list[Job]
    others: list[HoldTask | AskJob]
    outcomes: list[Outcome] | None = None

    @property
    def counted(self) -> bool:
        """Whether accounts may move, or asks that wait are to be looked at."""
        if self.others or not self.jobs:
            return True
        return any(
            isinstance(job, SettleJob) or any(isinstance(item, Correction) for item in job.items) for job in self.jobs
        )

    def holds(self) -> Iterator[str]:
        """The holds it is about."""
        for job in self.jobs:
            for item in job.items:
                yield item.call_id if isinstance(item, Entry) else item.corrects
        for task in self.others:
            yield task.hold_id if isinstance(task, HoldTask) else task.ask.hold_id

    def ranges(self) -> Iterator[Range]:
        """The accounts it is about, beside those of its holds."""
        for job in self.jobs:
            for one in job.settlement.charges if isinstance(job, SettleJob) else ():
                yield one.budget_id, one.value, one.period, one.period
        for task in self.others:
            if isinstance(task, AskJob):
                yield from ranges_of(task.ask.claims)


class Doubt(msgspec.Struct, frozen=True):
    """A transaction whose commit was not confirmed: its link if it has one, and what its appends are told if it was
    made."""

    link: bytes | None
    batch: Batch
    outcomes: list[Outcome]

    @property
    def jobs(self) -> list[Job]:
        """The appends that it writes, all of the batch or none."""
        return self.batch.jobs if self.batch.outcomes is None else []
