"""Charts: a report as a picture. Drawn on this machine: neither making nor opening one asks anything of the network.

Pictures show floats of dollars; the exact amounts are in the report itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.core.periods import CALENDAR, Period
from tallystick.errors import InputError
from tallystick.insight.spend import known_cost
from tallystick.insight.words import NOT_A_BILL, library, period_words, shown, time_words
from tallystick.ledger.query import Total

FORMATS: Final = ("png", "svg", "html")
MOST_SERIES: Final = 10
"""More groups than this cannot be told apart by colour: the rest are drawn as one."""

MOST_PERIODS: Final = 1000
REST: Final = "(others)"
TODO: Final = "Install what draws: pip install 'tallystick[charts]'"
_PICO: Final = 1e12
_SCALE: Final = 2.0
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; \
style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'; form-action 'none'">
<title>tally chart</title>
<script>{script}</script>
</head>
<body>
<div id="chart"></div>
<script>
vegaEmbed("#chart", {spec}, {{"renderer": "svg", "actions": {{"export": true, "source": false, "compiled": false, \
"editor": false}}}});
</script>
</body>
</html>
"""


class Picture(msgspec.Struct, frozen=True):
    """What is drawn: sums, the names they are grouped by, the stretch of time that parts them (None: none) in the time
    zone `tz`, and what stands under the title."""

    rows: tuple[Total, ...]
    by: tuple[str, ...]
    split: str | None
    tz: str
    notes: tuple[str, ...] = ()


def chart(picture: Picture) -> Any:
    """An altair Chart: bars by period, coloured by group, or by group alone. What a subscription covers is a panel of
    its own, as nobody is billed for it; rows of unknown cost are left out, and the title says how many calls. Raises
    ConfigError where altair is not installed."""
    altair = library("altair", TODO)
    points = _points(picture)
    title = altair.TitleParams(_title(picture), subtitle=list(picture.notes))
    bars = altair.Chart(altair.Data(values=points), title=title)
    if picture.split is None:
        across = altair.X("group:N", sort="-y", title=_by(picture))
    else:
        domain = altair.Scale(domain=_axis(picture))
        across = altair.X("when:N", scale=domain, title=picture.split, axis=altair.Axis(labelOverlap=True))
    tips = ["when:N"] if picture.split is not None else []
    encoded = {
        "x": across,
        "y": altair.Y("usd:Q", title="US dollars"),
        "tooltip": [*tips, "group:N", altair.Tooltip("usd:Q", format="$,.6~f"), "calls:Q"],
    }
    if picture.split is not None and picture.by:
        encoded["color"] = altair.Color("group:N", title=_by(picture))
    if len({point["bill"] for point in points}) > 1:
        encoded["row"] = altair.Row("bill:N", title=None)
    return bars.mark_bar().encode(**encoded).properties(width=640, height=300)


def save(picture: Picture, path: Path) -> int:
    """Draws the report into a .png, .svg or .html file and returns its bytes. The page holds its JavaScript and lets
    nothing load anything. Raises InputError for another ending or a file that cannot be written, ConfigError where
    altair or vl-convert-python is missing."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InputError(f"{path.name} does not end in {', '.join(f'.{name}' for name in FORMATS)}.")
    spec = chart(picture).to_json(indent=None)
    convert = library("vl_convert", TODO)
    if kind == "png":
        data = convert.vegalite_to_png(spec, scale=_SCALE)
    elif kind == "svg":
        data = convert.vegalite_to_svg(spec).encode()
    else:
        data = _page(spec, convert).encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    return len(data)


def _page(spec: str, convert: Any) -> str:
    # In a script element JSON must not hold what ends the element, and names in a ledger are anybody's.
    safe = json.dumps(json.loads(spec)).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    script = convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    return _PAGE.format(script=script, spec=safe)


def _points(picture: Picture) -> list[dict[str, Any]]:
    """A bar each: period, group, dollars, calls, and whether it is a bill."""
    kept = _kept(picture)
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in picture.rows:
        when = "" if picture.split is None else period_words(row, picture.split, picture.tz)
        group = _group(picture, row)
        group = group if group in kept else REST
        known = known_cost(row)
        for bill, pico in (("cost", 0 if known is None else known.pico), (NOT_A_BILL, row.not_owed.pico)):
            if pico:
                found = sums.setdefault((when, group, bill), [0, 0])
                found[0] += pico
                found[1] += row.calls
    return [
        {"when": when, "group": group, "bill": bill, "usd": pico / _PICO, "calls": calls}
        for (when, group, bill), (pico, calls) in sums.items()
    ]


def _axis(picture: Picture) -> list[str]:
    """The periods of the axis: every one from the first to the last, with calls or without, where they are few enough
    to be drawn; blocks have no fixed grid, so only those that were."""
    split = picture.split or ""
    drawn = list(dict.fromkeys(period_words(row, split, picture.tz) for row in picture.rows))
    if split not in CALENDAR or not picture.rows:
        return drawn
    period, last = Period(split, picture.tz), picture.rows[-1].start
    words: list[str] = []
    start = picture.rows[0].start
    while start is not None and last is not None and start <= last and len(words) <= MOST_PERIODS:
        words.append(time_words(start, split, picture.tz))
        start = period.bounds(start)[1]
    return list(dict.fromkeys(words)) if len(words) <= MOST_PERIODS else drawn


def _kept(picture: Picture) -> set[str]:
    """The groups that get a bar of their own: those that cost most."""
    sums: dict[str, int] = {}
    for row in picture.rows:
        group = _group(picture, row)
        sums[group] = sums.get(group, 0) + row.cost.pico + row.not_owed.pico
    return set(sorted(sums, key=lambda group: -sums[group])[:MOST_SERIES])


def _group(picture: Picture, row: Total) -> str:
    return shown(" / ".join(row.group.get(name) or "(none)" for name in picture.by)) or "all calls"


def _by(picture: Picture) -> str:
    return " / ".join(picture.by)


def _title(picture: Picture) -> str:
    words = f"Cost per {picture.split}" if picture.split else "Cost"
    return f"{words} by {_by(picture)}" if picture.by else words
