"""The snapshot: the bundled catalogue as bytes, deterministic, sorted, one model a line, so that its history reads
well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tallystick.catalog.sources.row import Row
from tallystick.errors import CatalogError

SCHEMA: Final = 1


def encode(
    rows: Iterable[Row], sources: Mapping[str, Mapping[str, str]], preference: Sequence[str], built_at: str
) -> bytes:
    """The snapshot of these rows as UTF-8 JSON."""
    models: dict[str, dict[str, bytes]] = {}
    aliases: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: row.key):
        models.setdefault(row.provider, {})[row.id] = _row(row)
        for alias in row.aliases:
            aliases.setdefault(row.provider, {})[alias] = row.id
    order = [name for name in preference if name in models]
    order += sorted(set(models) - set(order))
    lines = ['{"schema":%d,"built_at":%s,' % (SCHEMA, _text(built_at))]  # noqa: UP031
    lines.append(f'"sources":{json.dumps(sources, sort_keys=True, ensure_ascii=False, separators=(",", ":"))},')
    lines.append(f'"preference":{json.dumps(order, separators=(",", ":"))},')
    lines.append('"aliases":{')
    lines.append(",\n".join(_aliases(name, aliases[name]) for name in sorted(aliases)))
    lines.append('},"models":{')
    lines.append(",\n".join(_models(name, models[name]) for name in sorted(models)))
    lines.append("}}\n")
    return "\n".join(lines).encode()


def decode(snapshot: bytes) -> dict[str, Any]:
    """The snapshot as plain JSON values, cards and all. Raises CatalogError for anything else."""
    try:
        value: dict[str, Any] = msgspec.json.decode(snapshot, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise CatalogError(f"This is not a snapshot of the catalogue: {error}.") from None
    if value.get("schema") != SCHEMA:
        raise CatalogError(f"The snapshot has schema {value.get('schema')!r}; this version reads {SCHEMA}.")
    return value


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _aliases(provider: str, names: Mapping[str, str]) -> str:
    pairs = ",\n".join(f"{_text(name)}:{_text(names[name])}" for name in sorted(names))
    return f"{_text(provider)}:{{\n{pairs}}}"


def _models(provider: str, rows: Mapping[str, bytes]) -> str:
    pairs = ",\n".join(f"{_text(name)}:{rows[name].decode()}" for name in sorted(rows))
    return f"{_text(provider)}:{{\n{pairs}}}"


def _row(row: Row) -> bytes:
    value = {
        "maker": row.maker, "context_window": row.context_window, "max_output": row.max_output, "mode": row.mode,
        "retires": row.retires, "dated": row.dated, "cards": row.cards,
    }  # fmt: skip
    return msgspec.json.encode({name: given for name, given in value.items() if given}, order="sorted")
