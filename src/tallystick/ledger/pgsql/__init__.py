"""SQL for PostgreSQL: the schema as numbered migrations, and the named queries, read from the .sql files beside it."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATIONS: Final = ("0001_ledger.sql", "0002_holds.sql", "0003_spreads.sql")
_QUERIES: Final = ("queries.sql", "holds.sql")

VERSION: Final = len(_MIGRATIONS)
"""The version of the schema this package writes, kept in the table schema_version."""

SCHEMA: Final = "tallystick"
"""The schema of the database in which the ledger's tables are."""


@cache
def queries() -> dict[str, str]:
    """All named queries, with psycopg's placeholders."""
    found: dict[str, str] = {}
    for file in _QUERIES:
        parts = _NAME.split(_read(file))
        found |= {name: text.strip().removesuffix(";") for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def migrations(version: int) -> list[str]:
    """The script of each migration after `version`, in order."""
    return [_read(name) for name in _MIGRATIONS[version:]]


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
