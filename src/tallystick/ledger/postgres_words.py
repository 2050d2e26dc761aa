"""Words and names of a ledger in PostgreSQL: see `words`. Numbers are given for good, apart from any batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, cast

from tallystick.ledger.pgsql import queries
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.words import Names, Words

_MAX_RUNS: Final = 50_000


class PostgresWords(Words):
    """Words on a connection in autocommit: a number is committed at once, so that no other writer waits for a batch
    to learn it, and stays true when the batch is rolled back."""

    def __init__(self, connection: Connection, *, adding: bool = True) -> None:
        # The statements differ, the way to run them does not.
        super().__init__(cast("sqlite3.Connection", connection), adding=adding)
        self._sql = queries()
        self._known_runs: dict[str, int] = {}

    def moved(self, connection: Connection) -> None:
        """From now on another connection is used."""
        self.connection = cast("sqlite3.Connection", connection)

    def run(self, run_id: str) -> int:
        """The number of a run."""
        number = self._known_runs.get(run_id)
        return super().run(run_id) if number is None else number

    def learn_runs(self, run_ids: set[str]) -> None:
        """Gives numbers to many runs at once; agents begin new ones all the time."""
        if len(self._known_runs) > _MAX_RUNS:
            self._known_runs.clear()
        unknown = [run_id for run_id in run_ids if run_id not in self._known_runs]
        if unknown:
            rows = self.connection.execute(query("add_run_rows"), (unknown,)).fetchall()
            self._known_runs.update(rows)


class PostgresNames(Names):
    """Names on a connection that reads."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(cast("sqlite3.Connection", connection))
        self._sql = queries()
        self._texts: dict[tuple[str, int], str] = {}

    def learn(self, labels: Iterable[int], runs: Iterable[int | None]) -> None:
        """Reads at once what many entries name."""
        for find, one, numbers in (
            ("labels", "label_identity", {number for number in labels if ("label", number) not in self._kept}),
            ("runs", "run_name", {number for number in runs if number and ("run", number) not in self._kept}),
        ):
            if numbers:
                found = self._connection.execute(query(find), (list(numbers),)).fetchall()
                self._texts.update({(one, number): text for number, text in found})

    def _text(self, query: str, number: int) -> str:
        text = self._texts.pop((query, number), None)
        return super()._text(query, number) if text is None else text
