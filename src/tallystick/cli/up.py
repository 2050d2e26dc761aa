"""tally up: the gateway."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import json_option, pairs
from tallystick.errors import ConfigError, LedgerUnavailable

if TYPE_CHECKING:
    from tallystick.config import Config
    from tallystick.dashboard.app import Dashboard
    from tallystick.gateway.api.rooms import OwnRooms
    from tallystick.gateway.config import Settings
    from tallystick.gateway.station import Read, Station
    from tallystick.ledger.ledger import Ledger

EXPORTS = {
    "openai": ("OPENAI_BASE_URL", "/openai/v1"),
    "anthropic": ("ANTHROPIC_BASE_URL", "/anthropic"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL", "/gemini"),
}
"""The variables from which the providers' own clients take their base URL, and what each wants in it."""

FORM_KEY = "TALLY_FORM_KEY"
"""Processes that serve one port know each other's forms by what a supervisor leaves in this variable."""

AWAY_SECONDS = 0.5
"""How long a new worker waits before it tries a database again that is away."""

_WORKER = "from tallystick.cli.up import command; command(prog_name='tally up')"


@click.command("up", epilog="Example: tally up --port 4100 --upstream openai=https://api.openai.com/v1")
@click.option("--host", metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one. [default: 4100]")
@click.option("--upstream", "given", multiple=True, metavar="NAME=URL", help="A provider, as its SDK's base_url.")
@click.option("--ledger", metavar="PLACE", help="A file, or postgresql://... [default: the one in force]")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that share the port. [default: 1]")
@click.option("--token-file", type=click.Path(path_type=Path), help="The token without which nothing is served.")
@click.option("--read-only", is_flag=True, help="Relay nothing and write nothing.")
@json_option
def command(
    host: str | None,
    port: int | None,
    given: tuple[str, ...],
    ledger: str | None,
    workers: int | None,
    token_file: Path | None,
    read_only: bool,
    as_json: bool,
) -> int:
    """The gateway: one base URL for every client; each call is metered, limited and entered.

    Prints the base URLs to export; ends on Ctrl-C, after the calls in flight.
    """
    from tallystick.gateway.config import settings_of
    from tallystick.gateway.serving import bind, inherited, is_loopback, serve, supervise

    if ledger is not None:
        # The reports of other processes, and the workers, find the same one by the same means.
        os.environ["TALLY_LEDGER"] = ledger

    def read() -> tuple[Config, Settings]:
        config = front.settings()
        found = settings_of(config, os.environ, given=pairs(given, "--upstream"), token_file=token_file)
        return config, found if host is None else msgspec.structs.replace(found, host=host)

    settings = read()[1]
    listening = inherited()
    if listening is not None:
        station, rooms, pages = _station(read, _patiently(read_only=read_only), read_only=read_only)
        serve(station.gateway, listening, ready=lambda: _warm(pages), stopping=rooms.end_streams)
        return 0
    workers = workers or settings.workers
    if not is_loopback(settings.host) and settings.token is None:
        raise ConfigError(
            f"{settings.host} can be reached from other machines, so a token is needed.",
            todo="Make one: (umask 077; openssl rand -hex 32 > token), then --token-file token.",
        )
    listening = bind(settings.host, settings.port if port is None else port)
    where = _address(settings.host, listening.getsockname()[1])
    if workers > 1:
        # What is wrong with the ledger is said once, and not by each worker.
        front.open(read_only=read_only).close()
        _announce(where, as_json=as_json)
        words = [word for one in given for word in ("--upstream", one)]
        words += ["--host", settings.host, *(["--read-only"] if read_only else [])]
        words += [] if token_file is None else ["--token-file", str(token_file.expanduser().absolute())]
        os.environ[FORM_KEY] = secrets.token_hex()
        return supervise([sys.executable, "-c", _WORKER, *words], listening, workers)
    station, rooms, pages = _station(read, front.open(read_only=read_only), read_only=read_only)

    def ready() -> None:
        _announce(where, as_json=as_json)
        _warm(pages)

    serve(station.gateway, listening, ready=ready, stopping=rooms.end_streams)
    return 0


def _warm(pages: Dashboard) -> None:
    """Makes the pages ready while calls are served already."""
    threading.Thread(target=pages.warm, name="tally-pages", daemon=True).start()


def _patiently(*, read_only: bool) -> Ledger:
    """The ledger in force, once it can be opened: a worker that ended because the database is away would be started
    again and again, until the whole gateway gave up."""
    said = False
    while True:
        try:
            return front.open(read_only=read_only)
        except LedgerUnavailable as error:
            if not said:
                click.echo(f"A worker waits for the ledger. {printable(str(error))}", err=True)
            said = True
            time.sleep(AWAY_SECONDS)


def _station(read: Read, ledger: Ledger, *, read_only: bool) -> tuple[Station, OwnRooms, Dashboard]:
    """A worker with a ledger, its own rooms and the dashboard; calls in flight and a spool lie beside the ledger."""
    from tallystick.capture.process import Rates, beside_ledger, data_folder
    from tallystick.dashboard.app import Dashboard
    from tallystick.defaults import catalog, ledger_place
    from tallystick.gateway.api.rooms import OwnRooms
    from tallystick.gateway.spans import target_of
    from tallystick.gateway.station import Station
    from tallystick.ledger.ids import new_call_id
    from tallystick.ledger.intents import SUFFIX, Intents
    from tallystick.metering.spool import Spool, spool_folders

    beside = beside_ledger(ledger_place())
    flights = None if beside is None else beside.with_name(beside.name + SUFFIX)
    rooms = OwnRooms(ledger, front.catalog, flights=flights, export=target_of(os.environ))
    pages = Dashboard(
        ledger, front.catalog, flights=flights, read_only=read_only, form_key=os.environ.pop(FORM_KEY, ""),
        # The station, which is made of this, takes in another token while it serves.
        token=lambda: station.gateway.house.settings.token,
    )  # fmt: skip
    station = Station(
        ledger,
        Rates(catalog, time.monotonic),
        read,
        intents=None if flights is None else Intents(flights, new_call_id),
        spool=None if beside is None else Spool(spool_folders(beside, data_folder())),
        mounts={**pages.mounts, **rooms.mounts},
        open_paths=pages.open_paths,
        ending=rooms.close,
        read_only=read_only,
    )
    rooms.attend(station.meter)
    return station, rooms, pages


def _address(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host  # noqa: S104 - shown, not listened at
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def _announce(where: str, *, as_json: bool) -> None:
    from tallystick.defaults import ledger_place

    place = ledger_place()
    # The address of a database may hold a password.
    shown = str(place) if isinstance(place, Path) else "a database"
    if as_json:
        urls = {name: where + path for name, (_, path) in EXPORTS.items()}
        click.echo(json.dumps({"url": where, "urls": urls, "ledger": shown, "pid": os.getpid()}))
    else:
        click.echo(f"The gateway is at {where}; calls are entered in {printable(shown)}.")
        for variable, path in EXPORTS.values():
            click.echo(f"export {variable}={where}{path}")
    sys.stdout.flush()
