"""Folding: what has moved is brought into the rollups, in the background and by one process at a time."""

from __future__ import annotations

from typing import Final

from tallystick.ledger import postgres_spreads
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.rollups import slot_floor

FOLD_MOVES: Final = 4096
"""When so many moves wait they are folded in."""

_KEPT: Final = ("fold_cell", "fold_run", "fold_kind", "drop_moves", "drop_move_kinds")


def waiting(connection: Connection) -> int:
    """How many moves wait to be folded."""
    row = connection.execute(query("moves")).fetchone()
    return 0 if row is None else int(row[0])


def fold(connection: Connection, now_us: int) -> bool:
    """Folds in what waits; False when another process is at it. What is committed meanwhile waits for the next time."""
    with connection.transaction():
        if connection.execute(query("try_folding")).fetchone() != (True,):
            return False
        batches = [row[0] for row in connection.execute(query("moved_batches")).fetchall()]
        floor = _floor(connection, slot_floor(now_us))
        connection.execute(query("fold_cube"), (batches, floor))
        postgres_spreads.fold(connection, batches)
        for name in _KEPT:
            connection.execute(query(name), (batches,))
    return True


def _floor(connection: Connection, wanted: int) -> int:
    """The first quarter of an hour that is kept; what lies before goes."""
    row = connection.execute(query("get_state"), ("ledger", "slot_floor")).fetchone()
    floor = wanted if row is None else int(row[0])
    if wanted > floor:
        connection.execute(query("drop_quarters"), (wanted,))
        connection.execute(query("set_state"), ("ledger", "slot_floor", str(wanted)))
        return wanted
    return floor
