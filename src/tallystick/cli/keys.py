"""tally keys: virtual keys for the gateway."""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import json_option, pairs, reading_ledger, say_json, show_table
from tallystick.errors import InputError
from tallystick.insight.when import AGES, instant_of

if TYPE_CHECKING:
    from tallystick.gateway.keys import Key
    from tallystick.ledger.ledger import Ledger

NAMES = ("team", "user", "agent", "project")


@click.group("keys", invoke_without_command=True, epilog="Example: tally keys create --team a --budget '$50/day'")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Virtual keys: who may call through the gateway, for whom, and for how much."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("create", epilog="Example: tally keys create --team a --user ada --budget '$50/day' --expires 30d")
@click.option("--name", default="", help="A name of your own for it.")
@click.option("--team", help="The team of all its calls.")
@click.option("--user", help="The user of all its calls.")
@click.option("--agent", help="The agent of all its calls.")
@click.option("--project", help="The project of all its calls.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Any other tag of all its calls.")
@click.option("--open", "opened", metavar="NAME,...", help="Tags that its bearer may set by headers.")
@click.option("--models", metavar="MODEL,...", help="The only models it may call; * stands for anything.")
@click.option("--budget", metavar="LIMIT", help="A hard limit of its own: $50/day, 1M tokens/month.")
@click.option("--rpm", type=click.IntRange(min=1), metavar="N", help="At most N calls a minute.")
@click.option("--tpm", type=click.IntRange(min=1), metavar="N", help="At most N tokens a minute.")
@click.option("--expires", metavar="WHEN", help="30d, 12h, or a date.")
@click.option("--allow-unmetered", is_flag=True, help="Let it use paths whose cost nobody can read.")
@json_option
def create(
    name: str,
    tags: tuple[str, ...],
    opened: str | None,
    models: str | None,
    budget: str | None,
    rpm: int | None,
    tpm: int | None,
    expires: str | None,
    *,
    allow_unmetered: bool,
    as_json: bool,
    **named: str | None,
) -> None:
    """Make a key. It is shown once; the ledger keeps only its hash."""
    from tallystick.gateway.keys import Key, mint, save
    from tallystick.metering.budgets import put
    from tallystick.metering.rules import make_budget

    now = front.now()
    key_id, token, digest = mint(os.urandom)
    limits = {"": budget, "-rpm": None if rpm is None else f"{rpm} calls/1m"}
    limits["-tpm"] = None if tpm is None else f"{tpm} tokens/1m"
    rules = [
        make_budget(f"key-{key_id}{suffix}", {"limit": limit, "scope": {"key": key_id}, "tz": _zone()}, now)
        for suffix, limit in limits.items()
        if limit is not None
    ]
    key = Key(
        key_id=key_id,
        digest=digest,
        created_at=now,
        name=name,
        tags={**pairs(tags, "--tag"), **{one: value for one, value in named.items() if value}},
        open=_listed(opened),
        models=_listed(models),
        allow_unmetered=allow_unmetered,
        expires_at=None if expires is None else _expiry(expires, now),
        budgets=tuple([rule.budget_id for rule in rules]),
    )
    if "key" in (*key.tags, *key.open):
        raise InputError("The tag 'key' is the key's own id.", money="No key was made.")
    key.fixed()
    with front.open() as ledger:
        # The limits stand before the key does.
        for rule in rules:
            put(ledger, rule, now)
        save(ledger, key)
    _show_new(key, token, as_json=as_json)


@command.command("list", epilog="Example: tally keys list --json")
@json_option
def list_(as_json: bool) -> None:
    """All keys, without what makes them keys."""
    from tallystick.gateway.keys import saved

    with reading_ledger() as ledger:
        keys = saved(ledger)
    if as_json:
        say_json({"keys": [_json(key) for key in keys]})
        return
    if not keys:
        click.echo("There is no key yet. Example: tally keys create --team a --budget '$50/day'")
        return
    columns = [("key", "left"), ("name", "left"), ("state", "left"), ("tags", "left"), ("models", "left")]
    rows = [
        [
            f"{key.prefix}...",
            key.name,
            key.state(front.now()),
            ", ".join(f"{name}={value}" for name, value in sorted(key.tags.items())),
            ", ".join(key.models) or "all",
            f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never",
        ]
        for key in keys
    ]
    show_table("", [*columns, ("expires (UTC)", "left")], rows)


@command.command("rotate", epilog="Example: tally keys rotate tly_0123456789")
@click.argument("key")
@json_option
def rotate(key: str, as_json: bool) -> None:
    """Give a key a new secret; the old one stops at once. Tags, limits and what was spent stay."""
    from tallystick.gateway.keys import find, mint, save

    with front.open() as ledger:
        found = find(ledger, key)
        if found.revoked_at is not None:
            raise InputError("This key is revoked.", money="Nothing was changed.", todo="Make a new one.")
        _, token, digest = mint(os.urandom, found.key_id)
        found = msgspec.structs.replace(found, digest=digest, rotated_at=front.now())
        save(ledger, found)
    _show_new(found, token, as_json=as_json)


@command.command("revoke", epilog="Example: tally keys revoke tly_0123456789")
@click.argument("key")
def revoke(key: str) -> None:
    """End a key for good, and its own limits with it. Its calls stay in the ledger."""
    from tallystick.gateway.keys import find, save

    with front.open() as ledger:
        found = find(ledger, key)
        save(ledger, msgspec.structs.replace(found, revoked_at=found.revoked_at or front.now()))
        _drop(ledger, found)
    click.echo(f"{found.prefix}... is revoked; a running gateway knows it within a second.")


def _drop(ledger: Ledger, key: Key) -> None:
    standing = {budget.budget_id for budget in ledger.budgets().budgets}
    for budget_id in key.budgets:
        if budget_id in standing:
            ledger.drop_budget(budget_id)


def _show_new(key: Key, token: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"key": token, **_json(key)})
        return
    click.echo(token)
    click.echo(f"This is the only time it is shown. It is known as {printable(key.prefix)}.", err=True)


def _json(key: Key) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "prefix": key.prefix,
        "name": key.name,
        "state": key.state(front.now()),
        "tags": dict(key.tags),
        "open": list(key.open),
        "models": list(key.models),
        "allow_unmetered": key.allow_unmetered,
        "budgets": list(key.budgets),
        "created_at": _instant(key.created_at),
        "expires_at": _instant(key.expires_at),
        "rotated_at": _instant(key.rotated_at),
        "revoked_at": _instant(key.revoked_at),
    }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple([word.strip() for word in (text or "").split(",") if word.strip()])


def _expiry(text: str, now: datetime) -> datetime:
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    at = now + timedelta(seconds=int(match[1]) * AGES[match[2]]) if match else instant_of(text, now)
    if at <= now:
        raise InputError(f"{text!r} is over already.", money="No key was made.")
    return at


def _zone() -> str:
    return front.settings().timezone or "UTC"
