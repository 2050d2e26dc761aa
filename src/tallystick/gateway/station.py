"""Station: one worker of the gateway put together: its ledger, meter, keys and sender, and how they are changed while
it serves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tallystick.errors import TallyError
from tallystick.gateway.app import App, Gateway, House
from tallystick.gateway.fence import Fence
from tallystick.gateway.keys import KeyRing
from tallystick.gateway.providers import ProviderSender
from tallystick.gateway.relay import Relay
from tallystick.gateway.serving import is_loopback
from tallystick.metering.admission import open_admission
from tallystick.metering.budgets import apply
from tallystick.metering.meter import Meter

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.config import Config
    from tallystick.gateway.config import Settings
    from tallystick.ledger.intents import Intents
    from tallystick.ledger.ledger import Ledger
    from tallystick.metering.spool import Spool

LOOK_SECONDS = 1.0
"""How often keys, the configuration and the secrets file are looked at for changes."""

Read = Callable[[], tuple["Config", "Settings"]]


class Station:
    """A worker. `read` reads the configuration in force; `intents` and `spool` are as for a Meter. `rates` give the
    catalogue. `mounts` are further applications, and `ending` lets go of what they need the ledger for. Nothing blocks
    the loop once it serves, but for what the ledger does for a hard budget. `read_only` serves no calls. The ledger is
    closed with the station."""

    def __init__(
        self,
        ledger: Ledger,
        rates: Callable[[], Catalog],
        read: Read,
        *,
        intents: Intents | None = None,
        spool: Spool | None = None,
        mounts: Mapping[str, App] | None = None,
        open_paths: frozenset[str] = frozenset(),
        ending: Callable[[], None] | None = None,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        config, settings = read()
        self.ledger = ledger
        self._read = read
        self._clock = clock
        self._ending = ending
        self.faults: list[str] = []
        self._seen = _stamps(settings)
        self._looking: asyncio.Task[None] | None = None
        self.keys = KeyRing(ledger, ticks)
        self.keys.reload()
        self.admission = None if read_only else open_admission(ledger, config, rates, clock=clock)
        self.meter = None if read_only else Meter(
            ledger, rates, admission=self.admission, intents=intents, spool=spool, clock=clock, ticks=ticks,
            source="gateway",
        )  # fmt: skip
        self._sender = ProviderSender(connect=settings.connect_timeout, read=settings.read_timeout, ca=settings.ca)
        house = House(
            settings=settings,
            relay=None if self.meter is None else Relay(self.meter, self._sender),
            keys=self.keys,
            admission=self.admission,
            fence=fence_of(settings),
            mounts=mounts or {},
            open_paths=open_paths,
        )
        self.gateway = Gateway(house, close=self.close, begin=self.begin, clock=clock)

    async def begin(self) -> None:
        """Starts looking for changes; SIGHUP looks at once."""
        loop = asyncio.get_running_loop()
        self._looking = loop.create_task(self._look())
        with contextlib.suppress(ValueError, NotImplementedError, RuntimeError, AttributeError):
            # Only the main thread of a process has signals, and only where the platform has this one.
            loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, self.reload))

    async def close(self) -> None:
        """Settles what is open and lets go."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self._sender.aclose()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._ending is not None:
            self._ending()
        if self.meter is not None:
            self.meter.close()
        if self.admission is not None:
            self.admission.close()
        self.ledger.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Reads the keys again, and the configuration where its files have changed. Blocks."""
        self.keys.reload()
        if _stamps(self.gateway.house.settings) != self._seen:
            self.reload()

    def reload(self) -> None:
        """Takes in the configuration as it is now; one that makes no sense changes nothing and is kept in `faults`.
        Where it listens, its workers, certificates and timeouts stay until the next start. Blocks."""
        self.keys.reload()
        old = self.gateway.house
        self._seen = _stamps(old.settings)
        try:
            config, settings = self._read()
            if self.admission is not None:
                apply(self.ledger, config, datetime.fromtimestamp(self._clock(), UTC))
        except TallyError as error:
            self.faults.append(str(error))
            return
        if self.admission is not None:
            self.admission.refresh()
        settings = msgspec.structs.replace(settings, host=old.settings.host, port=old.settings.port)
        self._seen = _stamps(settings)
        self.gateway.house = msgspec.structs.replace(old, settings=settings, fence=fence_of(settings))


def fence_of(settings: Settings) -> Fence:
    """The fence for where the gateway listens: beyond loopback it may also be called by its number."""
    return Fence.of((*settings.hosts, settings.host), addresses=not is_loopback(settings.host))


def _stamps(settings: Settings) -> tuple[object, ...]:
    """What changes when one of the files does that the settings were read from."""
    return tuple([_stamp(path) for path in settings.watched])


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
