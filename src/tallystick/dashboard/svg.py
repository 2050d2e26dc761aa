"""SVG: charts drawn on the server, as pure functions of values.

A picture is as wide as its place: across it is measured in percent, down it in pixels, so that text keeps its size and
hairlines stay sharp at any width. Colours are classes (`series-1` to `series-8`, `series-0` for the rest), so light and
dark are CSS alone; there are no style attributes, no ids and no script. Every mark has a <title> and data-name and
data-value, every column (`g.col`) data-label, from which the page makes its hover boxes. Text from elsewhere is escaped
in one place. Amounts are whole numbers of a unit: `usd` (picodollars), `count`, `ms` or `percent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from tallystick.dashboard.marks import HAIR, mark, number, percent, tag, text
from tallystick.dashboard.scale import (
    BOTTOM,
    TALL,
    Scale,
    Value,
    axis_words,
    checked,
    fitting,
    merged,
    nice,
    scaled,
    shown,
    total,
)

MOST_MARKS: Final = 400
MOST_SERIES: Final = 8
_LONGEST_NAME: Final = 44
_AXIS_LABELS: Final = 8
_ACROSS: Final = 1000
_ROW: Final = 34
_DEEPEST: Final = 12
_STATES: Final = ("ok", "error", "refused", "cut", "cancelled", "open")


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A row of figures of one colour: `slot` is 1 to 8, 0 for the rest, None for the one of its place. A dashed line is
    no measurement: a projection, an even pace."""

    name: str
    values: tuple[Value, ...]
    slot: int | None = None
    dashed: bool = False


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A level drawn across a picture; `kind` is its class: `limit` or `alert`."""

    name: str
    value: int | float
    kind: str = "limit"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a waterfall: `start` and `length` in milliseconds from the beginning, `depth` how far it is nested,
    `cost` in picodollars (None: unknown), `note` what stands beside the cost, `state` a class (ok, error, refused, cut,
    open), `href` where it leads, a path of ours."""

    name: str
    start: float
    length: float
    depth: int = 0
    cost: int | None = None
    note: str = ""
    state: str = "ok"
    slot: int = 1
    href: str | None = None


def bars(
    series: Sequence[Series],
    labels: Sequence[str],
    *,
    title: str,
    unit: str = "usd",
    short: Sequence[str] | None = None,
    previous: Sequence[Value] | None = None,
    rules: Sequence[Rule] = (),
    tall: int = TALL,
) -> Markup:
    """Stacked bars, a column for each of `labels`; `short` are the labels of the axis, `previous` the totals of the
    period before, drawn as an outline. Negative figures stand below zero. What would be more than 400 marks is added
    up, neighbours together. Raises InputError for figures that are not finite or do not fit the labels."""
    drawn, named, size = arranged(series, labels)
    axis = _joined(short if short is not None else labels, size, first_only=True)
    before = None if previous is None else merged(fitting(previous, len(labels), title), size)
    columns = [[one.values[place] for one in drawn] for place in range(len(named))]
    sums = [(_sum(column, -1), _sum(column, 1)) for column in columns]
    levels = [*(edge for pair in sums for edge in pair), *(rule.value for rule in rules)]
    scale = scaled([*levels, *(value for value in before or () if value is not None)], unit, tall)
    inner = [_frame(scale, axis, unit)]
    step = 100 / max(len(named), 1)
    for place, column in enumerate(columns):
        parts = [_hit(place, step, scale)]
        up = down = 0.0
        for one, value in zip(drawn, column, strict=True):
            box = {"x": percent((place + 0.14) * step), "width": percent(0.72 * step)}
            low, high = (up, up + (value or 0)) if (value or 0) >= 0 else (down + (value or 0), down)
            up, down = max(up, high), min(down, low)
            parts.append(_bar(one, value, unit, named[place], {**box, "low": scale.y(low), "high": scale.y(high)}))
        inner.append(tag("g", "".join(parts), cls="col", data_label=named[place]))
    if before is not None:
        inner.append(_across(scale, tag("path", cls="previous", d=_steps(before, scale), **HAIR)))
    inner += [_rule(rule, scale, unit) for rule in rules]
    return _picture("chart bars", _summary(title, [high + low for low, high in sums], named, unit), inner, tall)


def lines(
    series: Sequence[Series],
    labels: Sequence[str],
    *,
    title: str,
    unit: str = "usd",
    short: Sequence[str] | None = None,
    area: bool = False,
    rules: Sequence[Rule] = (),
    tall: int = TALL,
) -> Markup:
    """Lines over time, one point for each of `labels`; a None leaves a gap. `area` fills what is below each line. Of
    more than 400 points, neighbours become the one that is furthest from zero, so that no peak is lost. Raises
    InputError as `bars`."""
    drawn, named, size = arranged(series, labels, peaks=True)
    axis = _joined(short if short is not None else labels, size, first_only=True)
    known = [value for one in drawn for value in one.values if value is not None]
    scale = scaled([*known, *(rule.value for rule in rules)], unit, tall)
    paths = []
    for one in drawn:
        kind = f"{_slot(one)} dashed" if one.dashed else _slot(one)
        if area and not one.dashed:
            paths.append(tag("path", cls=f"area {kind}", d=_path(one.values, scale, closed=True)))
        paths.append(tag("path", cls=f"line {kind}", d=_path(one.values, scale), **HAIR))
    inner = [_frame(scale, axis, unit), _across(scale, "".join(paths))]
    step = 100 / max(len(named), 1)
    for place, label in enumerate(named):
        parts = [_hit(place, step, scale)]
        for one in drawn:
            value = one.values[place]
            if value is not None:
                where = {"cx": percent((place + 0.5) * step), "cy": number(scale.y(value)), "r": "3"}
                parts.append(mark("circle", f"dot {_slot(one)}", label, (one.name, shown(value, unit)), where))
        inner.append(tag("g", "".join(parts), cls="col", data_label=label))
    inner += [_rule(rule, scale, unit) for rule in rules]
    first = drawn[0].values if drawn else ()
    return _picture("chart lines", _summary(title, first, named, unit), inner, tall)


def burn_down(
    left: Sequence[Value],
    labels: Sequence[str],
    *,
    limit: int,
    title: str,
    unit: str = "usd",
    projected: Sequence[Value] = (),
    short: Sequence[str] | None = None,
    tall: int = 160,
) -> Markup:
    """What is left of a limit over its whole period: `left` for each of `labels`, None where it is still to come;
    `projected` goes on from there. A thin dashed line is the even pace from the limit to nothing. Raises InputError as
    `bars`."""
    count = len(labels)
    checked([limit], title)
    pace = tuple([limit * (count - 1 - place) / max(count - 1, 1) for place in range(count)])
    rows = [Series(name="even pace", values=pace, slot=0, dashed=True)]
    if projected:
        rows.append(Series(name="at this pace", values=tuple(projected), slot=1, dashed=True))
    rows.append(Series(name="left", values=tuple(left), slot=1))
    return lines(rows, labels, title=title, unit=unit, short=short, area=True, tall=tall)


def waterfall(spans: Sequence[Span], *, title: str) -> Markup:
    """The calls and runs of a run under each other, each where it happened in time, with its cost. Of more than 400
    rows, the ones that cost least become one at the end. Raises InputError for times that are not finite."""
    for span in spans:
        checked([span.start, span.length, span.cost], title)
    rows, rest = _most_costly(spans)
    begin = min([span.start for span in rows], default=0)
    whole = max(max([span.start + max(span.length, 0) for span in rows], default=0) - begin, 1e-9)
    tall = 24 + _ROW * (len(rows) + (1 if rest else 0))
    inner = []
    for tick in nice(0, whole, 4, least=0):
        where = percent(100 * tick / whole)
        inner.append(tag("line", cls="grid", x1=where, x2=where, y1="18", y2=number(tall)))
        anchor = "start" if tick == 0 else "end" if tick > 0.95 * whole else "middle"
        inner.append(tag("text", text(shown(tick, "ms")), cls="tick", x=where, y="12", text_anchor=anchor))
    for place, span in enumerate(rows):
        inner.append(_span_row(span, 24 + _ROW * place, begin, whole))
    if rest:
        total = sum(span.cost or 0 for span in rest)
        words = f"{len(rest):,} more, {shown(total, 'usd')}" + (" at least" if _some_unknown(rest) else "")
        inner.append(tag("text", text(words), cls="name rest", x="0", y=number(24 + _ROW * len(rows) + 14)))
    known = sum(span.cost or 0 for span in spans)
    words = f"{title}: {len(spans):,} rows, {shown(whole, 'ms')}, {'at least ' if _some_unknown(spans) else ''}"
    role = "group" if any(span.href for span in rows) else "img"
    return _picture("chart waterfall", words + shown(known, "usd"), inner, tall, role=role)


def sparkline(values: Sequence[Value], *, title: str, unit: str = "usd") -> Markup:
    """A small line without axes that fills its place; its end is marked. Raises InputError as `bars`."""
    row = merged(checked(values, title), -(-max(len(values), 1) // 120), peaks=True)
    known = [value for value in row if value is not None]
    high, low = max([*known, 0]), min([*known, 0])
    scale = Scale(low, high if high > low else low + 1, 2, 26, ())
    path = tag("path", cls="line series-1", d=_path(row, scale), **HAIR)
    ends = [(place, value) for place, value in enumerate(row) if value is not None][-1:]
    dots = [f"M{number((place + 0.5) * _ACROSS / len(row))} {number(scale.y(value))}h0" for place, value in ends]
    dot = tag("path", cls="end series-1", d="".join(dots), **HAIR)
    words = f"{title}: " + (f"now {shown(known[-1], unit)}, most {shown(high, unit)}" if known else "nothing yet")
    inner = tag("title", text(words)) + path + dot
    return Markup(  # noqa: S704 - built of escaped parts
        tag(
            "svg",
            inner,
            cls="spark",
            role="img",
            aria_label=words,
            viewBox=f"0 0 {_ACROSS} 28",
            preserveAspectRatio="none",
        )
    )


def gauge(
    spent: int,
    limit: int,
    *,
    title: str,
    unit: str = "usd",
    suspect: int = 0,
    held: int = 0,
    alerts: Sequence[int] = (),
) -> Markup:
    """How full a limit is: `spent` (of which `suspect`) and `held` as parts of a bar, a hairline at each of `alerts`
    (percentages of the limit). What is above the limit is marked as over. Raises InputError as `bars`."""
    checked([spent, limit, suspect, held, *alerts], title)
    whole = max(limit, spent + held, 1)
    sure = max(spent - suspect, 0)
    used = shown(spent, unit)
    parts = [tag("rect", cls="track", x="0", y="3", width="100%", height="10", rx="3")]
    begin = 0
    for kind, name, amount in (("spent", "spent", sure), ("suspect", "suspect", suspect), ("held", "held", held)):
        if amount > 0:
            where = {"x": percent(100 * begin / whole), "width": percent(100 * amount / whole), "y": "3"}
            parts.append(mark("rect", f"part {kind}", title, (name, shown(amount, unit)), {**where, "height": "10"}))
        begin += max(amount, 0)
    if begin > limit:
        where = {"x": percent(100 * limit / whole), "width": percent(100 * (begin - limit) / whole), "y": "3"}
        over = shown(begin - limit, unit)
        parts.append(mark("rect", "part over", title, ("above the limit", over), {**where, "height": "10"}))
    for part in alerts:
        if 0 < part * limit <= 100 * whole:
            at = percent(part * limit / whole)
            name = tag("title", text(f"alert at {part} %"))
            parts.append(tag("line", name, cls="alert", x1=at, x2=at, y1="0", y2="16"))
    words = f"{title}: {used} of {shown(limit, unit)} spent" + (f", {shown(held, unit)} held" if held else "")
    return _picture("gauge over" if begin > limit else "gauge", words, parts, 16)


def arranged(
    series: Sequence[Series], labels: Sequence[str], *, peaks: bool = False
) -> tuple[tuple[Series, ...], tuple[str, ...], int]:
    """What is drawn of so many series and labels, for the legend too: at most eight series (the smallest become one of
    slot 0), at most 400 marks, each with its slot; and how many neighbours became one. Raises InputError for figures
    that are not finite or are not one for each label."""
    count = len(labels)
    rows = [(one, fitting(one.values, count, one.name)) for one in series]
    placed = [
        Series(name=one.name, values=values, slot=place + 1 if one.slot is None else one.slot, dashed=one.dashed)
        for place, (one, values) in enumerate(rows)
    ]
    if len(placed) > MOST_SERIES:
        sizes = [sum(abs(value) for value in one.values if value is not None) for one in placed]
        kept = sorted(sorted(range(len(placed)), key=lambda place: -sizes[place])[: MOST_SERIES - 1])
        rest = [one for place, one in enumerate(placed) if place not in kept]
        sums = tuple([total([one.values[place] for one in rest]) for place in range(count)])
        slotted = [msgspec.structs.replace(placed[place], slot=slot) for slot, place in enumerate(kept, 1)]
        placed = [*slotted, Series(name=f"{len(rest)} others", values=sums, slot=0)]
    size = max(1, -(-count * max(len(placed), 1) // MOST_MARKS))
    fewer = [msgspec.structs.replace(one, values=merged(one.values, size, peaks=peaks)) for one in placed]
    return tuple(fewer), _joined(labels, size), size


def _frame(scale: Scale, axis: Sequence[str], unit: str) -> str:
    """Grid lines, their figures left of the picture, and labels below it; every other one is `minor`, which a narrow
    page leaves out."""
    parts = []
    step = scale.ticks[1] - scale.ticks[0]
    for tick in scale.ticks:
        y = round(scale.y(tick)) + 0.5
        kind = "axis" if abs(tick) < step / 1e6 else "grid"
        parts.append(tag("line", cls=kind, x1="0", x2="100%", y1=number(y), y2=number(y)))
        words = text(axis_words(tick if kind == "grid" else 0, step, unit))
        parts.append(tag("text", words, cls="tick", x="-8", y=number(y + 3.5), text_anchor="end"))
    each = max(1, -(-len(axis) // _AXIS_LABELS))
    for turn, place in enumerate(range(0, len(axis), each)):
        where = percent((place + 0.5) * 100 / len(axis))
        kind = "tick minor" if turn % 2 else "tick"
        words = text(axis[place], 16)
        parts.append(tag("text", words, cls=kind, x=where, y=number(scale.bottom + 18), text_anchor="middle"))
    return "".join(parts)


def _bar(one: Series, value: Value, unit: str, label: str, box: dict[str, object]) -> str:
    low, high = float(str(box["low"])), float(str(box["high"]))
    if value is None:
        middle = {"cx": percent(float(str(box["x"]).rstrip("%")) + float(str(box["width"]).rstrip("%")) / 2)}
        return mark(
            "circle", f"unknown {_slot(one)}", label, (one.name, "unknown"), {**middle, "cy": low - 4, "r": "2"}
        )
    if value == 0:
        return ""
    where = {"x": box["x"], "width": box["width"], "y": number(high), "height": number(max(low - high, 0.5))}
    return mark("rect", f"mark {_slot(one)}", label, (one.name, shown(value, unit)), where)


def _span_row(span: Span, top: int, begin: float, whole: float) -> str:
    depth = max(0, min(span.depth, _DEEPEST))
    cost = "unknown" if span.cost is None else shown(span.cost, "usd")
    words = " · ".join(part for part in (span.note, cost) if part)
    left = max(0.0, min(99.6, 100 * (span.start - begin) / whole))
    width = max(0.4, min(100 - left, 100 * max(span.length, 0) / whole))
    name = text(span.name, _LONGEST_NAME)
    box = {"x": percent(left), "width": percent(width), "y": number(top + 19), "height": "8", "rx": "2"}
    length = shown(max(span.length, 0), "ms")
    parts = [
        tag("rect", cls="hit", x="0", y=number(top), width="100%", height=number(_ROW)),
        tag("text", name, cls="name", x=number(depth * 14), y=number(top + 13)),
        tag("text", text(words), cls="cost", x="100%", y=number(top + 13), text_anchor="end"),
        mark(
            "rect",
            f"mark {span.state if span.state in _STATES else _STATES[0]} series-{_known_slot(span.slot)}",
            span.name,
            (length, cost),
            box,
        ),
    ]
    inner = "".join(parts)
    if span.href is not None and span.href.startswith("/") and not span.href.startswith(("//", "/\\")):
        inner = tag("a", inner, href=span.href)
    return tag("g", inner, cls="col", data_label=span.name)


def _most_costly(spans: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """The rows that are drawn, in their order, and the rest."""
    order = sorted(range(len(spans)), key=lambda place: (-(spans[place].cost or 0), place))
    kept = set(order[:MOST_MARKS])
    return (
        [span for place, span in enumerate(spans) if place in kept],
        [span for place, span in enumerate(spans) if place not in kept],
    )


def _some_unknown(spans: Sequence[Span]) -> bool:
    return any(span.cost is None for span in spans)


def _across(scale: Scale, inner: str) -> str:
    """What is drawn in thousandths across; its strokes keep their width."""
    tall = number(scale.bottom + BOTTOM)
    box = {"viewBox": f"0 0 {_ACROSS} {tall}", "preserveAspectRatio": "none", "width": "100%", "height": tall}
    return tag("svg", inner, cls="plot", **box)


def _path(values: Sequence[Value], scale: Scale, *, closed: bool = False) -> str:
    """A line through the known figures, with a gap where one is unknown; closed down to zero for an area."""
    parts: list[str] = []
    step = _ACROSS / max(len(values), 1)
    for first, last in _known_stretches(values):
        points = [
            f"{number((place + 0.5) * step)} {number(scale.y(values[place] or 0))}" for place in range(first, last)
        ]
        line = "M" + "L".join(points) + ("h0" if len(points) == 1 else "")
        if closed:
            base = number(scale.y(max(scale.low, 0)))
            line += f"V{base}H{number((first + 0.5) * step)}Z"
        parts.append(line)
    return "".join(parts)


def _known_stretches(values: Sequence[Value]) -> Iterator[tuple[int, int]]:
    first: int | None = None
    for place, value in enumerate([*values, None]):
        if value is None and first is not None:
            yield first, place
            first = None
        elif value is not None and first is None:
            first = place


def _steps(values: Sequence[Value], scale: Scale) -> str:
    """The outline of columns."""
    step = _ACROSS / max(len(values), 1)
    parts = [f"M0 {number(scale.y(0))}"]
    for place, value in enumerate(values):
        parts.append(f"V{number(scale.y(value or 0))}H{number((place + 1) * step)}")
    return "".join([*parts, f"V{number(scale.y(0))}"])


def _rule(rule: Rule, scale: Scale, unit: str) -> str:
    y = number(round(scale.y(rule.value)) + 0.5)
    words = text(f"{rule.name} {shown(rule.value, unit)}")
    kind = f"rule {rule.kind if rule.kind in ('limit', 'alert') else 'limit'}"
    name = tag("text", words, cls=kind, x="100%", y=number(float(y) - 4), text_anchor="end")
    return tag("line", tag("title", words), cls=kind, x1="0", x2="100%", y1=y, y2=y) + name


def _hit(place: int, step: float, scale: Scale) -> str:
    box = {"x": percent(place * step), "width": percent(step), "y": "0", "height": number(scale.bottom)}
    return tag("rect", cls="hit", **box)


def _picture(kind: str, words: str, inner: Sequence[str], tall: float, role: str = "img") -> Markup:
    whole = tag("svg", "".join(inner), cls=kind, role=role, aria_label=words, width="100%", height=number(tall))
    return Markup(whole)  # noqa: S704 - built of escaped parts


def _summary(title: str, values: Sequence[Value], labels: Sequence[str], unit: str) -> str:
    """A picture in words."""
    known = [(value, label) for value, label in zip(values, labels, strict=True) if value is not None]
    if not known:
        return f"{title}: nothing yet"
    most, when = max(known, key=lambda pair: pair[0])
    return f"{title}: {len(known)} values from {known[0][1]} to {known[-1][1]}, most {shown(most, unit)} ({when})"


def _joined(labels: Sequence[str], size: int, *, first_only: bool = False) -> tuple[str, ...]:
    """The labels of `size` neighbours as one: `Mon 2 - Sun 8`."""
    if size <= 1:
        return tuple(labels)
    parts = [labels[place : place + size] for place in range(0, len(labels), size)]
    return tuple([part[0] if first_only or len(part) == 1 else f"{part[0]} - {part[-1]}" for part in parts])


def _slot(one: Series) -> str:
    return f"series-{_known_slot(one.slot or 0)}"


def _known_slot(slot: int) -> int:
    return slot if 0 <= slot <= MOST_SERIES else 0


def _sum(values: Sequence[Value], sign: int) -> float:
    """The sum of the figures on one side of zero."""
    return sum(value for value in values if value is not None and value * sign > 0)
