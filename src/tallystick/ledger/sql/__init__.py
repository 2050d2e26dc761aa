"""SQL: the schema as numbered migrations, and the named queries, read from the .sql files beside this one."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATIONS: Final = ("0001_ledger.sql", "0002_holds.sql", "0003_spreads.sql")
_QUERIES: Final = ("queries.sql", "holds.sql")

VERSION: Final = len(_MIGRATIONS)
"""The version of the schema this package writes, kept in the file as user_version."""


@cache
def queries() -> dict[str, str]:
    """All named queries."""
    found: dict[str, str] = {}
    for file in _QUERIES:
        parts = _NAME.split(_read(file))
        found |= {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def migrations(version: int) -> list[list[str]]:
    """The statements of each migration after `version`, in order."""
    return [_statements(_read(name)) for name in _MIGRATIONS[version:]]


def _statements(script: str) -> list[str]:
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def _read(name: str) -> str:
    # importlib.resources would cost a command line more time than reading the file does.
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
