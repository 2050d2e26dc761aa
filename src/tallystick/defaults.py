"""Defaults: what a process uses where nobody says otherwise: the clock, the configuration in force, the bundled
catalogue with the user's own rates on top, and the ledger. Surfaces take them from here; everything below gets them as
arguments."""

from __future__ import annotations

import contextlib
import functools
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tallystick.config import Config, find_config, load_config
from tallystick.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger


def now() -> datetime:
    """The present instant, UTC."""
    return datetime.now(UTC)


def settings() -> Config:
    """The configuration in force, read again only when its file or the environment changes. Raises ConfigError."""
    return _read_config(*_config_stamps())


def catalog() -> Catalog:
    """The bundled catalogue, or the user's updated one where that is newer, with the user's own rates on top. Raises
    ConfigError for a configuration that cannot be read."""
    folder = catalogue_folder()
    update = None if folder is None else _stamp(folder / "snapshot.sha256")
    return _read_catalog(update, *_config_stamps())


def open_ledger(path: str | os.PathLike[str] | None = None, *, read_only: bool = False) -> Ledger:
    """Opens a ledger, creating it where there is none: a file path, `":memory:"`, `postgresql://...`, or by default the
    one the configuration names, else the one in the platform's data folder. With `read_only` nothing is created or
    written. Raises LedgerError."""
    if path == ":memory:":
        from tallystick.ledger.memory import MemoryLedger

        return MemoryLedger(zone=settings().timezone or "UTC")
    from tallystick.ledger import opening

    place = ledger_place(path)
    ledger = opening.open_ledger(place, zone=settings().timezone or "UTC", read_only=read_only)
    if isinstance(place, Path) and not read_only:
        _bring_in(ledger, place)
    return ledger


def _bring_in(ledger: Ledger, place: Path) -> None:
    """Enters what had ended when a process was killed, and lay beside the ledger."""
    flights = place.with_name(f"{place.name}.flight")
    try:
        waiting = any(flights.iterdir())
    except OSError:
        return
    if waiting:
        from tallystick.metering.repair import recover

        # Where it cannot be written now, they wait for the next opening.
        with contextlib.suppress(LedgerError):
            recover(ledger, flights)


def ledger_place(path: str | os.PathLike[str] | None = None) -> Path | str:
    """The file or the database address of the ledger that `open_ledger` would use. Raises ConfigError."""
    from tallystick.ledger.opening import in_database

    named = path or settings().ledger
    return str(named) if in_database(named) else ledger_path(path)


def has_ledger() -> bool:
    """Whether there is a ledger to read; one in a database is taken to be there."""
    place = ledger_place()
    return isinstance(place, str) or place.exists()


def ledger_path(path: str | os.PathLike[str] | None = None) -> Path:
    """The file of the ledger that `open_ledger` would use. Raises ConfigError when the environment names no place for
    it, or one in a database."""
    from tallystick.ledger.opening import in_database
    from tallystick.ledger.paths import default_path

    named = path or settings().ledger
    if not named:
        return default_path(os.environ)
    if in_database(named):
        raise ConfigError(
            "The ledger in force is in a database, not in a file.",
            todo="Use the database's own tools for that, or set TALLY_LEDGER to a file.",
        )
    place = os.fspath(named)
    if "\0" in place:
        raise ConfigError(f"{place!r} is not a path.", todo="Set TALLY_LEDGER to the file's path.")
    return Path(os.path.expanduser(place))  # noqa: PTH111 - pathlib's own raises where there is no home folder


def catalogue_folder() -> Path | None:
    """Where `tally rates update` puts a newer catalogue; None where the environment names no data folder."""
    from tallystick.ledger.paths import default_path

    try:
        return default_path(os.environ).parent / "catalogue"
    except ConfigError:
        return None


def _config_stamps() -> tuple[object, ...]:
    """What changes when the configuration in force does."""
    named = (os.environ.get(name) for name in ("TALLY_CONFIG", "TALLY_LEDGER", "TALLY_TIMEZONE"))
    return _stamp(find_config(os.environ, Path())), *named


def _stamp(path: Path | None) -> object:
    """What changes when a file does; None where there is none."""
    try:
        stat = None if path is None else path.stat()
    except OSError:
        stat = None
    return None if stat is None else (str(path), stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4)
def _read_config(*_stamps: object) -> Config:
    return load_config(os.environ, Path())


@functools.lru_cache(maxsize=4)
def _read_catalog(update: object, *stamps: object) -> Catalog:
    # A report, a log or a status line opens the ledger without ever asking for a rate.
    from tallystick.catalog.catalog import Catalog

    folder = None if update is None else catalogue_folder()
    listed = Catalog.bundled() if folder is None else Catalog.newest(folder)
    return listed.with_user(_read_config(*stamps).rates)
