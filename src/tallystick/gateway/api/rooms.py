"""Rooms: the gateway's own services, each under the path where it is mounted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tallystick.catalog.catalog import Catalog
from tallystick.gateway.api.desk import Desk
from tallystick.gateway.api.http import Room
from tallystick.gateway.api.live import Live
from tallystick.gateway.api.openapi import PREFIX
from tallystick.gateway.api.room import Api
from tallystick.gateway.metrics import Metrics
from tallystick.gateway.otlp import PATH, Traces
from tallystick.gateway.spans import Exporter, Target
from tallystick.ledger.intents import SUFFIX

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger
    from tallystick.metering.meter import Meter


class OwnRooms:
    """The rooms of one process, over its ledger. `flights` is the folder of the calls in flight beside the ledger,
    `meter` what this process meters with, whose faults are shown; `export` is the collector that is told of finished
    calls (None: none; see `spans.target_of`)."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Callable[[], Catalog],
        *,
        flights: Path | None = None,
        meter: Meter | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        export: Target | None = None,
    ) -> None:
        desk = Desk(ledger, catalog, now, flights)
        self.live = Live(desk)
        self._metrics = Metrics(desk, meter)
        self.mounts: Mapping[str, Room] = {
            PREFIX: Api(desk, self.live),
            "/metrics": self._metrics,
            PATH: Traces(desk),
        }
        self._exporter = None if export is None else Exporter(desk, export, lock=_beside(flights))
        if self._exporter is not None:
            self._exporter.start()

    def attend(self, meter: Meter | None) -> None:
        """Shows the faults of this meter, where it is made after the rooms."""
        self._metrics.meter = meter

    def end_streams(self) -> None:
        """Ends the streams of events, so that the server can end; at once, and from any thread."""
        self.live.close()

    def close(self) -> None:
        """Ends the streams, and tells the collector what is still to be told, which may take a while. The ledger must
        still be open."""
        self.live.close()
        if self._exporter is not None:
            self._exporter.close()


def _beside(flights: Path | None) -> Path | None:
    """The file by which the processes on a ledger agree who of them exports."""
    return None if flights is None else flights.with_name(f"{flights.name.removesuffix(SUFFIX)}.spans")
