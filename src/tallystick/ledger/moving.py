"""Moving: a ledger's file copied into another ledger, as it was written, and checked against it.

Entries go over as they arrived, in the order in which they did, then the corrections, then what is kept beside them,
and last, in one piece, budgets with their accounts and holds; so joins, repeated ids, the past and what is left of a
limit come out the same. Ids make every step harmless to repeat: a move that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from tallystick.core.periods import Period
from tallystick.errors import InputError, LedgerCorrupt
from tallystick.ledger.budget import Budgets
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.hold import Account
from tallystick.ledger.ledger import EVERYTHING, KEEP, Item, Receipt
from tallystick.ledger.query import Query, Total
from tallystick.ledger.rows import decode, from_us
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.ledger.store import connect, explained
from tallystick.ledger.words import Names

NAMESPACE: Final = "moving"
"""Where the target's state remembers how far a move has come; gone when it is done."""

CHUNK: Final = 2000
_WAIT: Final = 5.0
_ENTRIES: Final = (
    "SELECT seq, call_id, started_us, recorded_us, run, body FROM entry WHERE seq > ? ORDER BY seq LIMIT ?"
)
_CORRECTIONS: Final = (
    "SELECT correction.seq, correction_id, entry.call_id, correction.recorded_us, correction.body FROM correction "
    "JOIN entry ON entry.seq = correction.entry WHERE correction.seq > ? ORDER BY correction.seq LIMIT ?"
)
_STATE: Final = "SELECT namespace, key, value FROM state WHERE namespace <> 'ledger' ORDER BY namespace, key"
_FIRST: Final = "SELECT call_id FROM entry ORDER BY seq LIMIT 1"
_NUMBER: Final = "SELECT (SELECT count(*) FROM entry) + (SELECT count(*) FROM correction)"
_BEFORE: Final = {
    "entries": "SELECT count(*) FROM entry WHERE seq <= ?",
    "corrections": "SELECT count(*) FROM correction WHERE seq <= ?",
}
_BUDGETS: Final = "SELECT budget_id, body, dropped FROM budget ORDER BY budget_id"
_ACCOUNTS: Final = (
    "SELECT budget_id, value, period, seed, settled, suspect, held, unlearned, overdraft FROM account "
    "ORDER BY budget_id, value, period"
)
_ROLLED: Final = "SELECT budget_id, value, floor, left_at, at_us FROM rolled ORDER BY budget_id, value"
_HOLDS: Final = (
    "SELECT hold_id, state, owner, authorised_us, expires_us, output, unlearned, payload, parts, settlement FROM hold "
    "ORDER BY id"
)
_VERSION: Final = "SELECT value FROM state WHERE namespace = 'ledger' AND key = 'budgets'"
_HAS_HOLDS: Final = "SELECT 1 FROM sqlite_master WHERE name = 'hold'"
_GROUPS: Final = ("provider", "model")


class HoldRows(msgspec.Struct, frozen=True):
    """Budgets, accounts, periods that rolling budgets have dropped, and holds: their rows in the file, and the version
    of the budgets. `mark` is a namespace, key and value of state that is set with them."""

    version: int
    budgets: Iterable[tuple[Any, ...]]
    accounts: Iterable[tuple[Any, ...]]
    rolled: Iterable[tuple[Any, ...]]
    holds: Iterable[tuple[Any, ...]]
    mark: tuple[str, str, str]


class Target(Protocol):
    """What a ledger needs to be moved into."""

    def append(self, items: Sequence[Item], *, durable: bool = False) -> Receipt:
        """See `Ledger.append`."""
        ...

    def total(self, query: Query = EVERYTHING, by: Sequence[str] = (), per: Period | None = None) -> list[Total]:
        """See `Ledger.total`."""
        ...

    def state(self, namespace: str, key: str, value: str | msgspec.UnsetType | None = KEEP) -> str | None:
        """See `Ledger.state`."""
        ...

    def states(self, namespace: str) -> dict[str, str]:
        """See `Ledger.states`."""
        ...

    def budgets(self) -> Budgets:
        """See `Ledger.budgets`."""
        ...

    def accounts(self, budget_id: str | None = None) -> list[Account]:
        """See `Ledger.accounts`."""
        ...

    def adopt(self, rows: HoldRows) -> None:
        """Takes over all budgets, accounts and holds, or none. Raises InputError where there are some already."""
        ...


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a move copied: entries (with those joined into others) and corrections, texts of state, and the number of
    sums by provider, model and month, and of accounts, that are the same on both sides."""

    items: int
    states: int
    sums: int
    accounts: int


def migrate(source: Path, target: Target, progress: Callable[[int, int], None] = lambda _done, _whole: None) -> Moved:
    """Copies the ledger in the file `source` into `target`, which must be empty or hold a part of just this move.
    `progress` is told how many of how many items are done. The source is only read.

    Raises InputError for a target that holds other calls, LedgerCorrupt when the sums on both sides differ, LedgerError
    where either cannot be used; what was copied by then stays, and the next try goes on from there.
    """
    with _reading(source) as (file, names):
        first, whole = file.execute(_FIRST).fetchone(), int(file.execute(_NUMBER).fetchone()[0])
        mark = f"from {first[0] if first else 'nothing'}"
        _check_free(target, mark)
        done = 0
        for what, statement in (("entries", _ENTRIES), ("corrections", _CORRECTIONS)):
            key = f"{mark}: {what}"
            position = int(target.state(NAMESPACE, key) or 0)
            done += int(file.execute(_BEFORE[what], (position,)).fetchone()[0])
            while rows := file.execute(statement, (position, CHUNK)).fetchall():
                target.append([_item(what, row[1:], names) for row in rows], durable=True)
                position = rows[-1][0]
                target.state(NAMESPACE, key, str(position))
                done += len(rows)
                progress(done, whole)
        states = file.execute(_STATE).fetchall()
        for namespace, key, value in states:
            target.state(namespace, key, value)
        key = f"{mark}: holds"
        if target.state(NAMESPACE, key) is None and file.execute(_HAS_HOLDS).fetchone() is not None:
            target.adopt(_rows(file, (NAMESPACE, key, "copied")))
    sums = _compare(source, target)
    accounts = _compare_accounts(source, target)
    for key in target.states(NAMESPACE):
        target.state(NAMESPACE, key, None)
    return Moved(items=done, states=len(states), sums=sums, accounts=accounts)


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[tuple[Any, Names]]:
    """The file in its state of one instant, so that what is written meanwhile is left out of everything alike."""
    with contextlib.closing(connect(source, read_only=True, timeout=_WAIT)) as file, explained(source):
        file.execute("BEGIN")
        yield file, Names(file)


def _check_free(target: Target, mark: str) -> None:
    """Raises InputError for a target that holds calls of others."""
    begun = target.states(NAMESPACE)
    if any(key.startswith(f"{mark}: ") for key in begun):
        return
    if begun or target.total()[0].calls or target.budgets().version or target.accounts():
        raise InputError(
            "The target holds other calls or budgets already, so the sums of both could not be compared.",
            money="Nothing was copied.",
            todo="Name an empty database.",
        )
    target.state(NAMESPACE, f"{mark}: entries", "0")


def _item(what: str, row: tuple[Any, ...], names: Names) -> Item:
    if what == "entries":
        entry: Entry = decode(row, names)
        return entry
    correction_id, call_id, recorded_us, text = row
    body = msgspec.json.decode(text)
    return Correction(
        correction_id=correction_id,
        corrects=call_id,
        recorded_at=from_us(recorded_us),
        reason=body["reason"],
        fields=body["fields"],
    )


def _rows(file: Any, mark: tuple[str, str, str]) -> HoldRows:
    version = file.execute(_VERSION).fetchone()
    return HoldRows(
        version=0 if version is None else int(version[0]),
        budgets=file.execute(_BUDGETS),
        accounts=file.execute(_ACCOUNTS),
        rolled=file.execute(_ROLLED),
        holds=file.execute(_HOLDS),
        mark=mark,
    )


def _compare_accounts(source: Path, target: Target) -> int:
    """The number of accounts that agree. Raises LedgerCorrupt where one does not."""
    with SqliteLedger(source, read_only=True) as ledger:
        wanted, budgets = ledger.accounts(), ledger.budgets()
    found = target.accounts()
    if [_figures(one) for one in wanted] != [_figures(one) for one in found] or budgets != target.budgets():
        raise LedgerCorrupt(
            f"The budgets differ: the file has {len(wanted):,} accounts, the target {len(found):,}, not all the same.",
            money="The file is as it was; the target cannot be trusted yet.",
            todo="End the programs that write to either of them, and move into an empty database.",
        )
    return len(wanted)


def _figures(one: Account) -> tuple[Any, ...]:
    stands = one.balance
    return one.budget_id, one.value, one.period, stands.settled, stands.suspect, stands.held, stands.overdraft


def _compare(source: Path, target: Target) -> int:
    """The number of sums that agree. Raises LedgerCorrupt where one does not."""
    month = Period("month")
    with SqliteLedger(source, read_only=True) as ledger:
        wanted = ledger.total(by=_GROUPS, per=month)
    found = target.total(by=_GROUPS, per=month)
    if wanted == found:
        return len(wanted)
    keys = {(row.start, *row.group.values()): row for row in found}
    for row in wanted:
        other = keys.pop((row.start, *row.group.values()), None)
        if other != row:
            start = "" if row.start is None else f"{row.start:%Y-%m}, "
            cost = "nothing" if other is None else f"{other.calls:,} calls for {other.cost}"
            raise LedgerCorrupt(
                f"The sums differ: {start}{row.group['provider']} {row.group['model']} has {row.calls:,} calls for "
                f"{row.cost} in the file, {cost} in the target.",
                money="The file is as it was; the target cannot be trusted yet.",
                todo="End the programs that write to either of them, and start again: it goes on where it stopped.",
            )
    raise LedgerCorrupt("The target has sums that the file does not have.", todo="Move into an empty database.")
