"""Reading: the page that asks before a question is answered by reading very many calls one by one."""

from __future__ import annotations

from tallystick.dashboard.asked import Asked
from tallystick.dashboard.room import Page, Room
from tallystick.insight.board_spend import unsummed


def ask_first(room: Room, asked: Asked) -> Page | None:
    """A page that says how many calls would have to be looked through, where no sums answer for the calls that are
    picked and nobody has asked for it with `read=1`; None where the answer is at hand. Raises LedgerError."""
    unread = 0 if asked.get("read") == "1" else unsummed(room.ledger, asked.query())
    if not unread:
        return None
    return Page(template="reading.html", data={"unread": unread}, more={"calls_to_read": unread}, live=0.0)
