"""Link: the way to a ledger's database: its address, its connections, and saying in words what is wrong with it."""

from __future__ import annotations

import contextlib
import math
import re
import select
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any, Final
from urllib.parse import quote

from tallystick.errors import InputError, LedgerCorrupt, LedgerError, LedgerUnavailable, TallyError
from tallystick.ledger.pgsql import SCHEMA, VERSION, migrations, queries

try:
    import psycopg
    from psycopg.adapt import Buffer, Loader
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as missing:
    raise LedgerUnavailable(
        "A ledger in PostgreSQL needs the package psycopg.",
        money="Nothing was entered.",
        todo="Install it: pip install 'tallystick[postgres]'",
    ) from missing

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMES: Final = ("postgresql://", "postgres://")
"""How the address of a ledger in PostgreSQL begins."""

_NOT_WRITTEN: Final = "Nothing of this was entered; what was there before is intact."
_LOST: Final = ("08", "57P")
_CLASHES: Final = ("40001", "40P01", "55P03")
_MISSING: Final = ("42P01", "3F000", "42883")
_OURS: Final = (psycopg.ProgrammingError, psycopg.NotSupportedError)
"""Without a code of the server's: a statement that the driver would not send, which trying again does not mend."""

_WORDS: Final = {
    "25006": ("is read-only", "Name the address of the server that takes writes."),
    "28000": ("does not let you in", "Check the user's name and the server's pg_hba.conf."),
    "28P01": ("does not take the password", "Check the user's name and password."),
    "3D000": ("has no such database", "Make it: createdb NAME"),
    "42501": ("does not allow this", "Give the user the right to make and use the schema tallystick."),
    "53100": ("cannot grow, the server's disk is full", "Make room and try again."),
    "53300": ("has no connection free", "Raise max_connections, or end other programs."),
    "55P03": ("is locked: another program has been writing it for too long", "Try again, or end that program."),
    "57014": ("took longer than the server's statement_timeout", "Ask for less at once, or raise the timeout."),
}
_SAID: Final = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ('role "', "28000"),
    ('database "', "3D000"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
)


class ConnectionLost(LedgerUnavailable):
    """The server went away or cannot be reached; trying again may help."""


class Clash(LedgerUnavailable):
    """Two transactions were in each other's way; trying again will help."""


class _Whole(Loader):
    """Sums of integers are numeric, and whole."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


class Link:
    """The way to one database. `url` is as libpq takes it; `timeout` bounds connecting and waiting for locks, in
    seconds. Raises InputError for an address that cannot be read."""

    def __init__(self, url: str, *, timeout: float, read_only: bool) -> None:
        try:
            self._parts: dict[str, Any] = conninfo_to_dict(url)
        except psycopg.Error:
            # The fault's own words quote the address, and its password with it.
            raise _unreadable() from None
        if "@" in str(self._parts.get("host")) or not str(self._parts.get("port") or 0).replace(",", "").isdigit():
            # A password with an @ in it runs over into the host, which is no secret.
            raise _unreadable()
        self._secret = str(self._parts.get("password") or "")
        self._timeout = timeout
        self._read_only = read_only
        self.place = self._place()

    def connect(self) -> Connection:
        """A new connection, in autocommit. Raises LedgerUnavailable."""
        given = {
            "connect_timeout": max(2, math.ceil(self._timeout)),
            "keepalives_idle": 30,
            "tcp_user_timeout": max(1000, int(self._timeout * 2000)),
            "application_name": "tallystick",
            **self._parts,
            "client_encoding": "utf8",
        }
        with self.explained():
            connection: Connection = psycopg.connect(make_conninfo(**given), autocommit=True)
        connection.adapters.register_loader("numeric", _Whole)
        try:
            with self.explained():
                connection.execute(self._settings())
        except LedgerError:
            connection.close()
            raise
        return connection

    def prepare(self, connection: Connection) -> None:
        """Makes the tables, or brings them up to date. A read-only link changes nothing. Raises LedgerUnavailable."""
        with self.explained():
            found = self._version(connection)
            if found > VERSION:
                raise LedgerUnavailable(
                    f"The ledger {self.place} was written by a newer tallystick.",
                    money=_NOT_WRITTEN,
                    todo="Update tallystick.",
                )
            if found == VERSION:
                return
            if self._read_only:
                raise LedgerUnavailable(f"There is no ledger in {self.place}.", todo="Open it for writing once.")
            self._migrate(connection)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns the faults of the server and the way to it into errors that say what happened and what to do."""
        try:
            yield
        except psycopg.Error as error:
            raise self._trouble(error) from None
        except UnicodeError as error:
            raise _unkept(str(error)) from None

    def _settings(self) -> str:
        wait = int(self._timeout * 1000)
        # Every commit is on the server's disk before it is acknowledged, whatever the server's own setting.
        # Who has waited for a lock must see what was committed meanwhile.
        settings = (
            f"SET search_path TO {SCHEMA}; SET lock_timeout TO {wait}; SET synchronous_commit TO on; "
            "SET default_transaction_isolation TO 'read committed';"
        )
        mode = " SET default_transaction_read_only TO on;" if self._read_only else ""
        return settings + mode

    def _version(self, connection: Connection) -> int:
        known = connection.execute("SELECT to_regclass('schema_version')").fetchone()
        if known is None or known[0] is None:
            return 0
        row = connection.execute(query("version")).fetchone()
        return 0 if row is None else int(row[0])

    def _migrate(self, connection: Connection) -> None:
        with connection.transaction():
            connection.execute(query("lock_making"))
            # Only who must make the schema needs the right to.
            if connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone() == (None,):
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
            # Another process may have been faster; now that we hold the lock the answer stays true.
            found = self._version(connection)
            for script in migrations(found):
                connection.execute(script)
            connection.execute("DELETE FROM schema_version")
            connection.execute(query("set_version"), (VERSION,))

    def _place(self) -> str:
        user, host = self._parts.get("user"), str(self._parts.get("host") or "localhost")
        port, name = self._parts.get("port"), self._parts.get("dbname") or user or ""
        where = quote(host, safe="") if host.startswith("/") else host
        return f"postgresql://{f'{user}@' if user else ''}{where}{f':{port}' if port else ''}/{name}"

    def _trouble(self, error: psycopg.Error) -> TallyError:
        text = str(error).strip().split("\n", 1)[0]
        if self._secret:
            text = text.replace(self._secret, "...")
        code = error.sqlstate or _code_said(text)
        if code is None and isinstance(error, psycopg.DataError):
            return _unkept(text)
        if code in _CLASHES:
            return Clash(
                f"The ledger {self.place} {_WORDS['55P03'][0]}: {text}.", money=_NOT_WRITTEN, todo="Try again."
            )
        if code is None and isinstance(error, _OURS):
            return LedgerUnavailable(
                f"A statement for the ledger {self.place} is wrong: {text}.",
                money=_NOT_WRITTEN,
                todo="Report this fault of tallystick, or install another version.",
            )
        if code in _WORDS:
            what, todo = _WORDS[code]
            return LedgerUnavailable(f"The ledger {self.place} {what}: {text}.", money=_NOT_WRITTEN, todo=todo)
        if code is None or code.startswith(_LOST):
            return ConnectionLost(
                f"The ledger {self.place} cannot be reached: {text}.",
                money=_NOT_WRITTEN,
                todo="Check that the server runs and that the address is right.",
            )
        if code in _MISSING:
            return LedgerCorrupt(
                f"The ledger {self.place} lacks tables of its own: {text}.",
                money="Its totals cannot be trusted.",
                todo="Restore it from a backup.",
            )
        return LedgerUnavailable(
            f"The ledger {self.place} failed: {text} ({code}).", money=_NOT_WRITTEN, todo="Look at the server's log."
        )


def query(name: str) -> str:
    """A named query's text."""
    return queries()[name]


@cache
def numbered(name: str) -> str:
    """A named query's text as `psycopg.RawCursor` takes it. Any other cursor would parse one of more than 50 values
    anew each time."""
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", query(name))


def stale(connection: Connection) -> bool:
    """Whether a connection that nobody uses has been closed from the other side."""
    if connection.closed:
        return True
    # The server says nothing unasked, but that it goes.
    if hasattr(select, "poll"):
        watch = select.poll()
        watch.register(connection.fileno(), select.POLLIN)
        return bool(watch.poll(0))
    return bool(select.select([connection.fileno()], [], [], 0)[0])


def _code_said(text: str) -> str | None:
    # A refused connection has no code, only words.
    if "FATAL" not in text:
        return None
    return next((code for words, code in _SAID if words in text), None)


def _unreadable() -> InputError:
    return InputError(
        "The address of the ledger's database cannot be read.",
        todo="Write postgresql://USER@HOST:PORT/DATABASE, with special characters as %XX.",
    )


def _unkept(text: str) -> InputError:
    return InputError(f"A text holds a character that PostgreSQL cannot keep: {text}.", money="It was not entered.")
