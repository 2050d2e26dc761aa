"""PostgreSQL gives the same answers as memory, and its rollups the same as its entries, whatever is appended and asked."""

from __future__ import annotations

from unittest.mock import patch

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import Clock
from test_same_answers import ZONES, appends, outcome, questions

from tallystick.core.periods import Period
from tallystick.ledger.ledger import Item
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.postgres import PostgresLedger
from tallystick.ledger.query import Query


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(appends, max_size=6),
    st.lists(questions(), min_size=3, max_size=6),
    st.sampled_from(ZONES),
    st.sampled_from([1, 4, 1000]),
)
def test_memory_and_postgres_agree(
    postgres_server: str,
    steps: list[list[Item]],
    asked: list[tuple[Query, tuple[str, ...], Period | None]],
    zone: str,
    fold: int,
) -> None:
    clock = Clock()
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS tallystick CASCADE")
    with (
        patch("tallystick.ledger.postgres.FOLD_MOVES", fold),
        MemoryLedger(zone, clock.seen) as memory,
        PostgresLedger(postgres_server, zone=zone, clock=clock.seen) as kept,
    ):
        for items in steps:
            # Time stands still while both write, however often they look.
            clock()
            assert outcome(memory, items) == outcome(kept, items)
        kept.flush()
        assert kept.verify() == []
        for query, by, per in asked:
            assert kept.total(query, by, per) == memory.total(query, by, per)
            assert list(kept.read(query)) == list(memory.read(query))
