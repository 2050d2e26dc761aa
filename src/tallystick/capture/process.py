"""Process: the meter of this process, for everybody who does not bring one; made at the first call, closed at exit."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from tallystick import defaults
from tallystick.catalog.catalog import Catalog
from tallystick.errors import LedgerError, TallyError
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.intents import SUFFIX, Intents
from tallystick.ledger.ledger import Ledger
from tallystick.metering.admission import BudgetAdmission, open_admission
from tallystick.metering.faults import LOG
from tallystick.metering.meter import Meter
from tallystick.metering.spool import Spool, spool_folders

RATES_SECONDS: Final = 2.0
"""How long the rates are used before their files are looked at again."""


class Rates:
    """The catalogue in force, looked up on disk at most every `RATES_SECONDS`; where that fails, the one before."""

    def __init__(self, read: Callable[[], Catalog], ticks: Callable[[], float]) -> None:
        self._read = read
        self._ticks = ticks
        self._until = float("-inf")
        self._catalog: Catalog | None = None

    def __call__(self) -> Catalog:
        """The rates to price a call with."""
        now = self._ticks()
        if self._catalog is None or now >= self._until:
            try:
                self._catalog = self._read()
            except TallyError as error:
                LOG.warning("the rates cannot be read: %s", error)
                if self._catalog is None:
                    self._catalog = Catalog.bundled()
            self._until = now + RATES_SECONDS
        return self._catalog


class _Closed:
    """Stands where a ledger could not be opened: every entry goes to the spool."""

    def __init__(self, error: LedgerError) -> None:
        self._error = error

    def submit(self, _items: object) -> object:
        """Refuses, and says why."""
        raise self._error

    def flush(self) -> None:
        """Nothing is pending."""

    def close(self) -> None:
        """Nothing to let go."""


class _Process:
    """The meters of this process, by ledger; a forked child has none of its parent's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.meters: dict[object, tuple[Meter, Ledger | None]] = {}
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        # The parent's threads are not here, and its locks may be held for ever.
        self.lock = threading.Lock()
        self.meters = {}

    def close(self) -> None:
        with self.lock:
            meters, self.meters = self.meters, {}
        for meter, owned in meters.values():
            meter.close()
            if isinstance(meter.admission, BudgetAdmission):
                with suppress(LedgerError):
                    meter.admission.close()
            if owned is not None:
                with suppress(LedgerError):
                    owned.close()

    def default(self) -> Meter:
        try:
            place = defaults.ledger_place()
        except TallyError as error:
            reason = error
            return self._made(None, lambda: _broken(reason))
        return self._made(place, lambda: _at(place))

    def of(self, ledger: Ledger) -> Meter:
        return self._made(id(ledger), lambda: (make_meter(ledger), None))

    def _made(self, key: object, make: Callable[[], tuple[Meter, Ledger | None]]) -> Meter:
        found = self.meters.get(key)
        if found is None:
            with self.lock:
                found = self.meters.get(key)
                if found is None:
                    found = self.meters[key] = make()
        return found[0]


def make_meter(ledger: Ledger, place: Path | str | None = None) -> Meter:
    """A meter that writes into a ledger; `place` is the ledger's file or database, where it has one."""
    intents = spool = None
    beside = None if place is None else beside_ledger(place)
    if beside is not None:
        intents = Intents(beside.with_name(beside.name + SUFFIX), new_call_id)
        spool = Spool(spool_folders(beside, data_folder()))
    rates = Rates(defaults.catalog, time.monotonic)
    return Meter(ledger, rates, admission=_admission(ledger, rates), intents=intents, spool=spool)


def _admission(ledger: Ledger, rates: Rates) -> BudgetAdmission | None:
    """Leave by the budgets of a ledger that can keep some."""
    if isinstance(ledger, _Closed) or not hasattr(ledger, "budgets"):
        return None
    try:
        return open_admission(ledger, defaults.settings(), rates)
    except TallyError as error:
        # A budget in the configuration that makes no sense is said, and those of the ledger hold all the same.
        LOG.warning("the budgets of the configuration are not in force: %s", error)
        return BudgetAdmission(ledger, rates)


def beside_ledger(place: Path | str) -> Path | None:
    """The name beside which a ledger's spool and calls in flight lie: its file, or for a database one in the user's
    data folder that differs by database and says nothing of its address."""
    if isinstance(place, Path):
        return place
    folder = data_folder()
    return None if folder is None else folder / f"database-{blake2b(place.encode(), digest_size=6).hexdigest()}"


def data_folder() -> Path | None:
    """The user's data folder, None where the environment names none."""
    folder = defaults.catalogue_folder()
    return None if folder is None else folder.parent


def _at(place: Path | str) -> tuple[Meter, Ledger | None]:
    try:
        ledger = defaults.open_ledger(place)
    except LedgerError as error:
        return make_meter(_Closed(error), place), None  # type: ignore[arg-type]
    return make_meter(ledger, place), ledger


def _broken(error: TallyError) -> tuple[Meter, Ledger | None]:
    closed = _Closed(LedgerError(error.what, money=error.money, todo=error.todo))
    return make_meter(closed), None  # type: ignore[arg-type]


_PROCESS: Final = _Process()


def default_meter() -> Meter:
    """The meter of this process, which writes into the default ledger. Never raises: where the ledger cannot be opened
    its entries go to the spool."""
    return _PROCESS.default()


def meter_of(ledger: Ledger | None) -> Meter:
    """The meter of this process for a ledger; None: the default one. The ledger stays the caller's to close, after the
    calls that write into it."""
    return default_meter() if ledger is None else _PROCESS.of(ledger)


def close_meters() -> None:
    """Settles what is open and closes the default ledger; the next call opens it again. Done at exit by itself."""
    _PROCESS.close()
