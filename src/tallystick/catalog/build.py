"""Building the catalogue: sources in, one snapshot out. The maintainers' command; users never need it.

python -m tallystick.catalog.build --genai DIR --litellm FILE --out FILE
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from tallystick.catalog import history, merge, snapshot
from tallystick.catalog.checks import check
from tallystick.catalog.sources import genai, litellm, overrides, reviewed, rules
from tallystick.catalog.sources.row import Log, Row, midnight

_LICENCE = "MIT"


@dataclass(frozen=True)
class Snapshot:
    """A built catalogue: its bytes, and what the build left out or had to choose."""

    data: bytes
    log: Log
    statuses: Counter[str]

    @property
    def sha256(self) -> str:
        """The hash that the bundled file is checked against, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def build(
    genai_dir: Path,
    litellm_json: Path,
    previous: bytes | None = None,
    *,
    built_at: date,
    litellm_version: str = "unknown",
    overrides_dir: Traversable | None = None,
) -> Snapshot:
    """Merges an unpacked genai-prices release and LiteLLM's price file with our overrides.

    `previous` is the snapshot that the new one replaces and continues; `overrides_dir` stands in for the bundled files.
    Raises CatalogError when a source cannot be read, or when a rate is negative, is zero, or moved by more than half
    without a reviewed override.
    """
    log = Log()
    day = built_at.isoformat()
    corrections = overrides.read(overrides_dir or resources.files("tallystick.catalog").joinpath("overrides"))
    first = genai.read(genai_dir, day, log)
    second = litellm.read(litellm_json, litellm_version, day, log)
    rows = _merged(first, second, corrections, midnight(built_at), log)
    reviewed.apply(rows, corrections, log)
    for row in rows:
        rules.finish(row)
    if previous is not None:
        history.carry_over(rows, previous, midnight(built_at), log)
    rows.settle_names(log)
    check(rows, previous, corrections.of("accept"))
    sources = {
        "genai-prices": {"version": first.version, "retrieved_at": day, "licence": _LICENCE},
        "litellm": {"version": litellm_version, "retrieved_at": day, "licence": _LICENCE},
        "overrides": {"version": day, "retrieved_at": day, "licence": _LICENCE},
    }
    data = snapshot.encode(rows, sources, corrections.providers["preference"], day)
    return Snapshot(data, log, Counter(card.status for row in rows for card in row.cards))


def _merged(
    first: genai.Reading, second: Iterable[Row], corrections: overrides.Overrides, now: datetime, log: Log
) -> merge.Rows:
    table = corrections.providers
    originals = list(first.rows)
    for row in originals:
        row.maker = rules.maker_of(row.id, row.provider, table)
        rules.make_free(row, f"genai-prices {first.version}", now.date().isoformat())
    rows = merge.Rows(merge.mirrored((copy.copy(row) for row in originals), table["mirror"]))
    heirs = {str(table["mirror"].get(heir, {}).get("to", heir)): names for heir, names in first.fallbacks.items()}
    for heir, lenders in sorted(heirs.items()):
        merge.inherit(rows, heir, lenders, log)
    merge.compare_in(rows, second, now, frozenset(heirs), log)
    for row in rows:
        row.maker = row.maker or rules.maker_of(row.id, row.provider, table)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: builds, prints what was left out, writes the snapshot and its hash beside it."""
    parser = argparse.ArgumentParser(prog="python -m tallystick.catalog.build", description=__doc__)
    parser.add_argument("--genai", type=Path, required=True, help="folder with an unpacked genai-prices wheel")
    parser.add_argument("--litellm", type=Path, required=True, help="LiteLLM's model price JSON")
    parser.add_argument("--litellm-version", default="unknown", help="the release the JSON came with")
    parser.add_argument("--built-at", type=date.fromisoformat, default=datetime.now(UTC).date(), help="YYYY-MM-DD")
    parser.add_argument("--out", type=Path, required=True, help="the snapshot to write; the one there is compared with")
    options = parser.parse_args(arguments)
    previous = options.out.read_bytes() if options.out.exists() else None
    built = build(
        options.genai, options.litellm, previous, built_at=options.built_at, litellm_version=options.litellm_version
    )
    for line in built.log.lines():
        sys.stderr.write(line + "\n")
    sys.stderr.write(f"cards: {dict(sorted(built.statuses.items()))}, {len(built.data):,} bytes\n")
    options.out.write_bytes(built.data)
    options.out.with_suffix(".sha256").write_text(f"{built.sha256}  {options.out.name}\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
