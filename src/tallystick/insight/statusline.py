"""Status line: one line for a shell or an editor, which asks for it every few seconds and must not feel it.

So this file stands alone: the standard library, one query over the latest calls by the index of their start, and none
of the rooms that a report needs. A test holds it against the ledger's own answers.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

SLOT_US = 900_000_000
"""Quarters of an hour: every time zone's midnight is one's beginning."""

HOUR_SLOTS = 4
BLOCK_SLOTS = 20
BACK_SLOTS = 192
"""Two days back; a silence in them that ended a block is what the current block is counted from."""

MOST_CALLS = 10_000
"""So many calls are added up at most, the latest ones; then the line says `at least`."""

_APPLICATION_ID = 0x54414C59
_QUERY = f"""
SELECT
    slot, owed, count(*), sum(cost_micro), sum(cost_pico), sum(unpriced), sum(quality = 2 AND status <> 4),
    (SELECT value FROM state WHERE namespace = 'ledger' AND key = 'zone')
FROM (
    SELECT started_us / {SLOT_US} AS slot, owed, cost_micro, cost_pico, unpriced, quality, status
    FROM entry WHERE started_us >= ? AND started_us <= ? AND joined_us IS NULL
    ORDER BY started_us DESC LIMIT {MOST_CALLS}
) GROUP BY slot, owed
"""  # noqa: S608 - numbers of our own

Sums = list[int]
"""calls, picodollars owed, picodollars not owed, owed calls without a price, other calls without one, calls counted at
least."""


def status_line(path: str, now: datetime) -> str:
    """What today and the current five-hour block cost so far, and how long the block lasts: `$1.23 today · block $0.40,
    2h10m left`. What a subscription covers is labelled; unknown is never zero. `now` is aware. Raises sqlite3.Error or
    ValueError for a file that is no ledger."""
    now_us = int(now.timestamp() * 1_000_000)
    slot = now_us // SLOT_US
    first = (slot - BACK_SLOTS) // HOUR_SLOTS * HOUR_SLOTS
    rows = _rows(path, first * SLOT_US, now_us)
    today = _midnight(now, rows[0][7] if rows else None) // SLOT_US
    capped = sum(row[2] for row in rows) >= MOST_CALLS
    oldest = min((row[0] for row in rows), default=slot)
    day = _added(rows, today, capped=capped and oldest >= today)
    parts = [_words(day, "today") if day[0] else "no calls today"]
    start = _block([row[0] for row in rows], first if not capped else oldest)
    if start is not None and slot < start + BLOCK_SLOTS:
        left = (start + BLOCK_SLOTS) * SLOT_US - now_us
        minutes = left // 60_000_000
        block = _added(rows, start, capped=capped and oldest >= start)
        parts.append(f"block {_words(block, '')}, {minutes // 60}h{minutes % 60:02d}m left")
    return " · ".join(parts)


def _rows(path: str, since_us: int, until_us: int) -> list[tuple[int, int, int, int, int, int, int, str | None]]:
    # urllib would take longer to import than the query takes.
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{'//' if path[:1] == '/' else ''}{quoted}?mode=ro", uri=True, timeout=0.2)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise ValueError("not a ledger")
        return connection.execute(_QUERY, (since_us, until_us)).fetchall()
    finally:
        connection.close()


def _midnight(now: datetime, zone: str | None) -> int:
    """Today's first instant in the ledger's time zone, in microseconds since 1970."""
    if zone is None or zone == "UTC":
        return int(now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * 1_000_000
    from zoneinfo import ZoneInfo

    local = now.astimezone(ZoneInfo(zone))
    return int(datetime(local.year, local.month, local.day, tzinfo=local.tzinfo).timestamp()) * 1_000_000


def _added(rows: list[tuple[int, int, int, int, int, int, int, str | None]], since: int, *, capped: bool) -> Sums:
    sums = [0, 0, 0, 0, 0, int(capped)]
    for slot, owed, calls, micro, pico, unpriced, least, _ in rows:
        if slot >= since:
            sums[0] += calls
            sums[1 if owed else 2] += micro * 1_000_000 + pico
            sums[3 if owed else 4] += unpriced
            sums[5] += least
    return sums


def _block(slots: list[int], first: int) -> int | None:
    """The first slot of the latest block; None where no silence since `first` tells where a block began."""
    hours = sorted({slot // HOUR_SLOTS for slot in slots})
    start, silent = None, first // HOUR_SLOTS
    for hour in hours:
        if start is None:
            start = hour if hour - silent >= BLOCK_SLOTS // HOUR_SLOTS - 1 else None
        elif hour >= start + BLOCK_SLOTS // HOUR_SLOTS:
            start = hour
        silent = hour + 1
    return None if start is None else start * HOUR_SLOTS


def _words(sums: Sums, when: str) -> str:
    calls, owed, free, unpriced, unpriced_free, least = sums
    del calls
    parts = []
    if owed or unpriced or not (free or unpriced_free):
        parts.append(_amount(owed, unpriced, least) + (f" {when}" if when else ""))
    if free or unpriced_free:
        words = f"API-equivalent {_amount(free, unpriced_free, least)}"
        parts.append(f"{words} {when}, not a bill" if when else f"{words}")
    return " + ".join(parts)


def _amount(pico: int, unpriced: int, least: int) -> str:
    cents = (2 * pico + 10**10) // (2 * 10**10)
    text = f"${cents // 100:,}.{cents % 100:02d}" if cents or not pico else "under $0.01"
    if unpriced or least:
        return f"at least {text}" if cents else "unknown"
    return text
