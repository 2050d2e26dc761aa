"""Names: a scope with names that a framework knows (agent, step, tool, user), around the calls made below it.

Names only. What a call used and cost is read from the wire, for frameworks report it late, twice or not at all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import msgspec

from tallystick.core.attribution import MAX_LENGTH, MAX_TAGS, Tags
from tallystick.metering.leave import Who
from tallystick.metering.run import Scope, current


class Named(Scope, frozen=True, eq=False):
    """A scope that a framework's callback has put around the calls below it."""


def named(
    outer: Scope | None,
    tags: Mapping[str, object],
    *,
    step: str | None = None,
    run_id: str | None = None,
    trace_id: str | None = None,
) -> Named:
    """The scope inside another one. What the caller has said stands above what the framework knows: its run and its
    tags stay, except for `tool`, which is the framework's own. Never raises: a name that cannot be a tag is left out.
    """
    who = Who() if outer is None else outer.who
    kept: dict[str, object] = dict(who.tags)
    for name, value in tags.items():
        text = name_of(value)
        if text and name_of(name) == name and (name == "tool" or name not in kept) and len(kept) < MAX_TAGS:
            kept[name] = text
    inner = msgspec.structs.replace(
        who,
        tags=Tags(kept),
        step=name_of(step) or who.step,
        run_id=who.run_id or name_of(run_id),
        trace_id=who.trace_id or name_of(trace_id),
    )
    return Named(inner, None if outer is None else outer.run, None if outer is None else outer.most, outer)


def name_of(value: object) -> str | None:
    """A value as a name: text or a whole number, without control characters, at most 256 characters long; None for
    anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = "".join(char for char in str(value) if unicodedata.category(char) not in ("Cc", "Cs"))
    return text.strip()[:MAX_LENGTH] or None


def clear() -> None:
    """Takes off the scopes that frameworks have put on the inside, in this thread or task."""
    scope = current.get()
    while isinstance(scope, Named):
        scope = scope.outer
    current.set(scope)
