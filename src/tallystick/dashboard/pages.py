"""Pages: templates filled in. Text is text everywhere: escaped, and without characters that are not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tallystick.core.money import Money
from tallystick.dashboard import figures
from tallystick.dashboard.asked import FILTERS, PRESETS
from tallystick.dashboard.room import Column, Link, Room, View
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Total

FOLDER: Final = Path(__file__).parent / "templates"


class Pages:
    """The templates, with what every one of them may use; `urls` are the addresses of the static files by name."""

    def __init__(self, urls: Mapping[str, str], views: tuple[View, ...]) -> None:
        self._jinja = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finalize,
            auto_reload=False,
        )
        self._jinja.filters |= {
            "dollars": figures.dollars,
            "count": figures.count,
            "calls": figures.calls,
            "compact": figures.compact,
            "percent": figures.percent,
            "delta": figures.delta,
            "moment": figures.moment,
            "lasting": figures.lasting,
            "known": figures.total_known,
            "open_ended": figures.open_ended,
            "rfc3339": rfc3339,
            "clean": figures.clean,
        }
        self._jinja.tests["instance"] = isinstance
        self._jinja.globals |= {
            "static": urls,
            "views": views,
            "presets": PRESETS,
            "filter_names": FILTERS,
            "change": figures.change,
            "column_places": figures.column_places,
            "table_places": _table_places,
            "Column": Column,
            "Link": Link,
        }

    def ready(self) -> None:
        """Reads all templates."""
        for name in self._jinja.list_templates():
            self._jinja.get_template(name)

    def fill(self, template: str, room: Room, **values: Any) -> bytes:
        """A page of a template, as UTF-8."""
        return self._jinja.get_template(template).render(room=room, **values).encode("utf-8", "replace")


def _table_places(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The decimals of each column of amounts, by its key."""
    found: dict[str, int] = {}
    for column in columns:
        if column.kind in ("money", "cost"):
            values = [row.get(column.key) for row in rows]
            amounts = [figures.total_known(one) if isinstance(one, Total) else one for one in values]
            found[column.key] = figures.column_places([one for one in amounts if isinstance(one, Money)])
    return found


def _finalize(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return figures.clean(value)
    return value
