"""Asking: questions put to a ledger's file, each answered from one snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager

from tallystick.core.periods import Period
from tallystick.ledger import answers, spread_answers
from tallystick.ledger.answers import Question
from tallystick.ledger.ledger import EVERYTHING
from tallystick.ledger.percentiles import Gathered
from tallystick.ledger.progress import Progress, watched
from tallystick.ledger.query import Order, Query, Top, Total, Totals, grouping
from tallystick.ledger.reading import entries
from tallystick.ledger.sketches import Spread
from tallystick.ledger.store import get_state
from tallystick.ledger.words import Names


class Answering:
    """What a ledger in a file says when it is asked."""

    def _snapshot(self) -> AbstractContextManager[tuple[sqlite3.Connection, Names]]:
        """The reading connection in a transaction, so that all that is read is of one instant."""
        raise NotImplementedError

    def total(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Total]:
        """Sums over the calls that fit. See `Ledger.total`."""
        return self._totals(query, tuple(by), per, progress).rows()

    def top(self, query: Query = EVERYTHING, by: Sequence[str] = (), order: Order = "cost", most: int = 50) -> Top:
        """The largest groups. See `Ledger.top`."""
        return self._totals(query, tuple(by), None, None).top(order, most)

    def spread(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Spread]:
        """Percentiles over the calls that fit. See `Ledger.spread`."""
        names_by = grouping(tuple(by), query)
        found = Gathered(names_by, per)
        with self._snapshot() as (connection, names):
            zone = get_state(connection, "ledger", "zone") or "UTC"
            known = spread_answers.answer(connection, names, Question.of(query, names_by, per, zone), found, progress)
        if not known:
            for entry in watched(entries(self._snapshot, query), query, progress):
                found.add_entry(entry)
        return found.rows()

    def _totals(self, query: Query, by: tuple[str, ...], per: Period | None, progress: Progress | None) -> Totals:
        names_by = grouping(by, query)
        totals = Totals(names_by, per)
        with self._snapshot() as (connection, names):
            zone = get_state(connection, "ledger", "zone") or "UTC"
            known = answers.answer(connection, names, Question.of(query, names_by, per, zone), totals, progress)
        if not known:
            totals = Totals(names_by, per)
            for entry in watched(entries(self._snapshot, query), query, progress):
                totals.add_entry(entry)
        return totals
