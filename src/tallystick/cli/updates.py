"""tally rates diff and tally rates update: another catalogue, and what it would do to the ledger."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.catalog.catalog import HASH, SNAPSHOT, Catalog, built_on, bundled_path, digest, read_update
from tallystick.cli import printable
from tallystick.cli.shared import json_option, reading_ledger, say_json, show_table, warn
from tallystick.errors import CatalogError, InputError

if TYPE_CHECKING:
    from tallystick.catalog.diff import Change
    from tallystick.insight.rerate import Effect

SHOWN_CHANGES = 40
SOURCES = ("genai-prices", "litellm")


@click.command(
    "diff",
    short_help="What changed between two catalogues.",
    epilog="Example: tally rates diff old-snapshot.json new-snapshot.json",
)
@click.argument("old", required=False, metavar="[OLD]")
@click.argument("new", required=False, metavar="[NEW]")
@click.option("--all", "everything", is_flag=True, help=f"Every change, not only the first {SHOWN_CHANGES}.")
@json_option
def diff(old: str | None, new: str | None, everything: bool, as_json: bool) -> None:
    """What changed between two catalogues, and what that would do to the ledger; nothing is changed. By default the
    bundled catalogue is compared with the one that `tally rates update` installed."""
    before = bundled_path().read_bytes() if old is None else read_snapshot(old)
    after = updated() if new is None else read_snapshot(new)
    if after is None:
        click.echo("There is no updated catalogue; tally rates update makes one.")
        return
    show_difference(before, after, everything, as_json)


@click.command(
    "update", short_help="Rebuild the catalogue from the newest sources.", epilog="Example: tally rates update"
)
@click.option("--yes", is_flag=True, help="Install it without asking.")
def update(yes: bool) -> None:
    """Rebuild the catalogue from the newest sources (needs pip and its package index), show what changes and what that
    does to the ledger, and install it for you after asking."""
    folder = front.catalogue_folder()
    if folder is None:
        raise InputError("The environment names no home folder.", todo="Set HOME or XDG_DATA_HOME.")
    current = updated() or bundled_path().read_bytes()
    with tempfile.TemporaryDirectory(prefix="tally-rates-") as place:
        built = rebuild(Path(place), current)
    if built_on(built) <= built_on(bundled_path().read_bytes()):
        click.echo(f"The bundled catalogue of {built_on(built)} is as new as the sources; nothing was installed.")
        return
    if built == current:
        click.echo("The sources have not changed; nothing was installed.")
        return
    show_difference(current, built, everything=False, as_json=False)
    if not yes:
        click.confirm(f"Install the catalogue of {built_on(built)}?", abort=True, err=True)
    install(built, folder)
    click.echo(
        f"Installed in {printable(str(folder))}. It prices new calls from now on; what is in the ledger stays as it is."
    )


def updated() -> bytes | None:
    """The snapshot that `rates update` installed, or None."""
    folder = front.catalogue_folder()
    return None if folder is None else read_update(folder)


def read_snapshot(name: str) -> bytes:
    """A snapshot file's bytes. Raises InputError."""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"The snapshot {name} cannot be read: {error.strerror}.", todo="Check the path.") from None


def show_difference(before: bytes, after: bytes, everything: bool, as_json: bool) -> None:
    """The changes between two snapshots, then their effect on the ledger."""
    from tallystick.catalog.diff import compare
    from tallystick.insight.rerate import rerate

    changes = compare(before, after)
    with reading_ledger() as ledger:
        effects = rerate(ledger, Catalog(before), Catalog(after))
    if as_json:
        listed = [change_json(change) for change in changes]
        say_json({"changes": listed, "ledger": [effect.to_json() for effect in effects]})
        return
    shown = changes if everything else changes[:SHOWN_CHANGES]
    for change in shown:
        click.echo(printable(str(change)))
    if len(shown) < len(changes):
        click.echo(f"... and {len(changes) - len(shown):,} more; --all shows them.")
    many = "1 change" if len(changes) == 1 else f"{len(changes):,} changes"
    click.echo(f"{many} from the catalogue of {built_on(before)} to that of {built_on(after)}.")
    show_effects(effects)


def change_json(change: Change) -> dict[str, object]:
    """A change as plain JSON values; rates are decimal text."""
    import msgspec

    value: dict[str, object] = msgspec.to_builtins(change)
    return value


def show_effects(effects: Sequence[Effect]) -> None:
    """What the calls in the ledger would cost, per model."""
    if not effects:
        click.echo("No call in the ledger would cost anything else.")
        return
    columns = [("model", "left"), ("calls", "right"), ("now", "right"), ("then", "right"), ("difference", "right"),
               ("besides", "left")]  # fmt: skip
    rows = []
    for effect in effects:
        counts = (
            (effect.lost, "would lose their price"),
            (effect.found, "would get a price"),
            (effect.skipped, "left out"),
        )
        besides = ", ".join(f"{count:,} {words}" for count, words in counts if count)
        rows.append([
            f"{effect.provider}/{effect.model}", f"{effect.calls:,}", str(effect.before), str(effect.after),
            str(effect.difference), besides,
        ])  # fmt: skip
    click.echo("The calls in the ledger, if they were priced again (they are not):")
    show_table("", columns, rows)


def rebuild(place: Path, current: bytes) -> bytes:
    """Downloads the newest sources and builds a snapshot of them in `place`. Raises CatalogError."""
    warn("fetching " + " and ".join(SOURCES) + " ...")
    wheels = place / "wheels"
    fetch = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    run([*fetch, "--dest", str(wheels), *SOURCES], "The sources cannot be fetched")
    version = "unknown"
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place / "sources")
        if wheel.name.startswith("litellm-"):
            version = wheel.name.split("-")[1]
    prices = place / "sources" / "litellm" / "model_prices_and_context_window_backup.json"
    out = place / SNAPSHOT
    out.write_bytes(current)
    warn("building ...")
    run(
        ["-m", "tallystick.catalog.build", "--genai", str(place / "sources"), "--litellm", str(prices),
         "--litellm-version", version, "--out", str(out)],
        "The catalogue cannot be built",
    )  # fmt: skip
    return out.read_bytes()


def run(arguments: list[str], failure: str) -> None:
    """Runs this Python with the arguments. Raises CatalogError with the last line of what it said."""
    package = Path(__file__).parents[2]
    paths = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(  # noqa: S603 - our own interpreter and arguments, no shell
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise CatalogError(
            f"{failure}: {said[0]}",
            money="The catalogue you have stays in use.",
            todo="Try again later, or set single rates with tally rates set.",
        )


def install(data: bytes, folder: Path) -> None:
    """Puts a snapshot into the user's data folder, its hash last: until both fit together neither is used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in ((SNAPSHOT, data), (HASH, f"{digest(data)}  {SNAPSHOT}\n".encode())):
            scratch = folder / f".{name}.{os.getpid()}"
            scratch.touch(mode=0o600)
            scratch.write_bytes(content)
            scratch.replace(folder / name)
    except OSError as error:
        raise CatalogError(
            f"The catalogue cannot be written to {folder}: {error.strerror}.",
            money="The catalogue you have stays in use.",
            todo="Check the folder's rights and the free space.",
        ) from None
