"""Opening: a ledger by where it is, a file or the address of a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

_SCHEMES: Final = ("postgresql://", "postgres://")


def in_database(where: object) -> bool:
    """Whether a ledger's place is the address of a database rather than a file."""
    return isinstance(where, str) and where.startswith(_SCHEMES)


def open_ledger(where: str | os.PathLike[str], *, zone: str | None = None, read_only: bool = False) -> Ledger:
    """Opens the ledger at a path or at `postgresql://...`, creating it where there is none; with `read_only` nothing
    is created or written. `zone` is the time zone of the days of a new one. Raises LedgerError, InputError for an
    address that cannot be read."""
    if in_database(where):
        from tallystick.ledger.postgres import PostgresLedger

        return PostgresLedger(os.fspath(where), zone=zone, read_only=read_only)
    from tallystick.ledger.sqlite import SqliteLedger

    return SqliteLedger(Path(where), zone=zone, read_only=read_only)
