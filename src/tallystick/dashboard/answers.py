"""Answers: a view's values as a page, as CSV or as JSON; the same figures three times."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.http import CSV, JSON, Reply
from tallystick.dashboard.room import Page
from tallystick.insight.words import csv_cell
from tallystick.ledger.entry import SCHEMA, rfc3339


def as_csv(page: Page, name: str) -> Reply:
    """The rows as CSV, a head first. Amounts are exact decimals of dollars, empty where nothing is known; text that a
    spreadsheet would take for a formula gets an apostrophe in front."""
    heads = list(dict.fromkeys(key for row in page.rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(csv_cell, heads))
    for row in page.rows:
        writer.writerow([csv_cell(_cell(row.get(key))) for key in heads])
    named = b'attachment; filename="tally-%s.csv"' % name.encode("ascii", "replace")
    return Reply(200, text.getvalue().encode("utf-8", "replace"), CSV, ((b"content-disposition", named),))


def as_json(page: Page, asked: Asked) -> Reply:
    """The rows, and what else the page knows, as JSON; money is `{"usd": "..."}`, null where nothing is known."""
    question = {
        "since": None if asked.since is None else rfc3339(asked.since),
        "until": None if asked.until is None else rfc3339(asked.until),
        "tz": asked.tz,
        "filters": dict(asked.filters),
    }
    value = {
        "schema": SCHEMA,
        "asked": question,
        **_plain_map(page.more),
        "rows": [_plain_map(row) for row in page.rows],
    }
    return Reply(200, msgspec.json.encode(value), JSON)


def _cell(value: object) -> object:
    """Money as a plain decimal, to its last digit that is not zero."""
    return value.plain() if isinstance(value, Money) else value


def _plain_map(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    if isinstance(value, Money):
        return value.to_json()
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Mapping):
        return _plain_map(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
