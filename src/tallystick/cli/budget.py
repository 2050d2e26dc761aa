"""tally budget: limits on what may be spent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import INCOMPLETE, json_option, pairs, reading_ledger, say_json, show_table
from tallystick.errors import InputError
from tallystick.insight.api_rows import budget_json, hold_json
from tallystick.insight.when import length_of

if TYPE_CHECKING:
    from tallystick.ledger.budget import Budget
    from tallystick.ledger.hold import Charge
    from tallystick.metering.budgets import Standing


@click.group("budget", invoke_without_command=True, epilog="Example: tally budget add team-a --limit '$50/day'")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Limits on what may be spent, and how much of them is left."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("add", epilog="Example: tally budget add team-a --limit '$50/day' --scope team=a --alert 50,80,100")
@click.argument("name")
@click.option("--limit", required=True, metavar="LIMIT", help="$50/day, 1M tokens/month, 100 calls/1m, $20.")
@click.option("--scope", multiple=True, metavar="NAME=VALUE", help="Only calls that bear this; all of them must fit.")
@click.option("--each", multiple=True, metavar="NAME", help="An account of its own for each value, e.g. each user.")
@click.option("--soft", is_flag=True, help="Only count and tell; never refuse a call.")
@click.option("--fail-open", is_flag=True, help="Let calls go when the ledger cannot be asked.")
@click.option("--source", "sources", multiple=True, metavar="SOURCE", help="Count calls of log, otlp, manual, import.")
@click.option("--tz", metavar="ZONE", help="The time zone of its days. [default: that of reports]")
@click.option("--anchor", type=int, default=1, metavar="DAY", help="The day a week (1 = Monday) or month begins.")
@click.option("--alert", "alerts", metavar="PERCENT,...", help="Tell somebody at these shares of the limit.")
@json_option
def add(
    name: str,
    limit: str,
    scope: tuple[str, ...],
    each: tuple[str, ...],
    *,
    sources: tuple[str, ...],
    alerts: str | None,
    tz: str | None,
    anchor: int,
    soft: bool,
    fail_open: bool,
    as_json: bool,
) -> None:
    """Add a budget, or give one of that name another limit; what it has used stays. What was spent in its scope in the
    present period counts from the beginning."""
    from tallystick.metering.budgets import put
    from tallystick.metering.rules import make_budget

    rule: dict[str, object] = {
        "limit": limit,
        "scope": pairs(scope, "--scope"),
        "each": each,
        "hard": not soft,
        "failure": "open" if fail_open else "closed",
        "sources": sources,
        "tz": tz or front.settings().timezone or "UTC",
        "anchor": anchor,
        "alerts": _percentages(alerts),
    }
    budget = make_budget(name, rule, front.now())
    with front.open() as ledger:
        put(ledger, budget, front.now())
        _show(name, as_json=as_json, ledger=ledger)


@command.command("list", epilog="Example: tally budget list --json")
@json_option
def list_(as_json: bool) -> None:
    """All budgets, with what is spent, held and left in the present period."""
    from tallystick.metering.advisory import open_tags
    from tallystick.metering.budgets import standings

    with reading_ledger() as ledger:
        found = [(budget, standings(ledger, budget, front.now())) for budget in ledger.budgets().budgets]
        opened = open_tags(ledger, front.now())
    if as_json:
        say_json({"budgets": [_json(budget, stands, opened) for budget, stands in found]})
        return
    if not found:
        click.echo("There is no budget yet. Example: tally budget add team-a --limit '$50/day' --scope team=a")
        return
    columns = [("budget", "left"), ("limit", "right"), ("spent", "right"), ("held", "right"), ("left", "right")]
    rows = [_list_row(budget, stands, opened) for budget, stands in found]
    show_table("", [*columns, ("used", "right"), ("for", "left"), ("resets", "left"), ("remarks", "left")], rows)


@command.command("show", epilog="Example: tally budget show team-a")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """One budget: its rule, and each of its accounts in the present period."""
    with reading_ledger() as ledger:
        _show(name, as_json=as_json, ledger=ledger)


@command.command("raise", epilog="Example: tally budget raise team-a --by '$10' --for 2h")
@click.argument("name")
@click.option("--by", required=True, metavar="AMOUNT", help="How much more: $10, 1M tokens, 100 calls.")
@click.option("--for", "length", default="24h", show_default=True, metavar="LENGTH", help="How long: 30m, 2h, 7d.")
def raise_(name: str, by: str, length: str) -> None:
    """Lift a limit for a while. A raise takes the place of one that is in force."""
    from tallystick.metering.budgets import find_budget
    from tallystick.metering.rules import parse_limit

    until = front.now() + length_of(length)
    amount, unit, period = parse_limit(by)
    with front.open() as ledger:
        budget = find_budget(ledger, name)
        if unit != budget.unit or period.unit != "lifetime":
            raise InputError(
                f"The budget {name!r} counts {budget.unit}; {by!r} does not fit.",
                money="Nothing was changed.",
                todo="Give an amount without a period.",
            )
        raised = msgspec.structs.replace(budget, raised_by=amount, raised_until=until)
        ledger.put_budget(raised)
    click.echo(f"{printable(name)}: {raised.shown(raised.limit_at(front.now()))} until {until:%Y-%m-%d %H:%M} UTC.")


@command.command("remove", epilog="Example: tally budget remove team-a")
@click.argument("name")
def remove(name: str) -> None:
    """Take a budget away. The calls it counted stay in the ledger."""
    from tallystick.metering.budgets import find_budget

    with front.open() as ledger:
        find_budget(ledger, name)
        ledger.drop_budget(name)
    click.echo(f"{printable(name)} is removed; nothing limits its calls any more.")


@command.command("pause", epilog="Example: tally budget pause team-a")
@click.argument("name")
def pause(name: str) -> None:
    """Let a budget limit nothing for now; it goes on counting."""
    _set_paused(name, paused=True)


@command.command("resume", epilog="Example: tally budget resume team-a")
@click.argument("name")
def resume(name: str) -> None:
    """Let a paused budget limit calls again."""
    _set_paused(name, paused=False)


@command.command("deliver", epilog="Example: tally budget deliver")
@json_option
def deliver(as_json: bool) -> int:
    """Look at all thresholds now, and deliver every notice that waits. Exit code 4 when some could not be delivered."""
    from tallystick.metering.alerts import Alerter

    told = front.settings().alerts
    if not told:
        raise InputError("The configuration says nobody to tell.", todo="Add a webhook or a command under [alerts].")
    with front.open() as ledger:
        alerter = Alerter(ledger, told)
        alerter.look(ledger.budgets().budgets)
        sent, left = alerter.deliver(at_once=True)
    if as_json:
        say_json({"delivered": sent, "waiting": left})
    else:
        click.echo(f"{sent:,} delivered, {left:,} waiting.")
    return INCOMPLETE if left else 0


@command.group("holds", invoke_without_command=True, epilog="Example: tally budget holds --suspect")
@click.option("--suspect", is_flag=True, help="Only those of calls whose end nobody knows.")
@json_option
@click.pass_context
def holds(ctx: click.Context, suspect: bool, as_json: bool) -> None:
    """Money that is set aside: for calls in flight, and for those whose end nobody knows (suspect)."""
    if ctx.invoked_subcommand is not None:
        return
    with reading_ledger() as ledger:
        units = {budget.budget_id: budget for budget in ledger.budgets().budgets}
        found = ledger.holds("suspect") + ([] if suspect else ledger.holds("open"))
    if as_json:
        say_json({"holds": [hold_json(hold, units) for hold in found]})
        return
    if not found:
        click.echo("Nothing is held." if not suspect else "No hold is suspect.")
        return
    columns = [("call", "left"), ("state", "left"), ("since", "left"), ("holds", "left")]
    rows = [[hold.hold_id, hold.state, _minute(hold.authorised_at), _charges(hold.charges, units)] for hold in found]
    show_table("", columns, rows)


@holds.command("resolve", epilog="Example: tally budget holds resolve 0199c0de-... --release")
@click.argument("hold_id", metavar="CALL")
@click.option("--charge", "charge", is_flag=True, help="All that it holds was spent.")
@click.option("--release", "release", is_flag=True, help="Nothing of it was spent: give it back.")
def resolve(hold_id: str, charge: bool, release: bool) -> None:
    """Your word on a suspect hold: it was spent, or it was not."""
    if charge == release:
        raise click.UsageError("Say one of --charge and --release.")
    with front.open() as ledger:
        found = {hold.hold_id: hold for hold in ledger.holds("suspect")}.get(hold_id)
        ledger.resolve(hold_id, found.charges if charge and found is not None else None)
    click.echo(f"{printable(hold_id)} is {'charged' if charge else 'given back'}.")


def _set_paused(name: str, *, paused: bool) -> None:
    from tallystick.metering.budgets import find_budget

    with front.open() as ledger:
        budget = find_budget(ledger, name)
        ledger.put_budget(msgspec.structs.replace(budget, paused=paused))
    says = "limits nothing until it is resumed; it goes on counting" if paused else "limits calls again"
    click.echo(f"{printable(name)} {says}.")


def _show(name: str, *, as_json: bool, ledger: Any) -> None:
    from tallystick.metering.advisory import open_tags
    from tallystick.metering.budgets import find_budget, standings
    from tallystick.metering.rules import limit_words

    budget = find_budget(ledger, name)
    stands = standings(ledger, budget, front.now())
    opened = open_tags(ledger, front.now())
    if as_json:
        say_json(_json(budget, stands, opened))
        return
    facts = {
        "limit": limit_words(budget),
        "for": _scope(budget) or "every call",
        "kind": "hard: refuses and stops calls" if budget.hard else "soft: counts and tells",
        "time zone": budget.period.tz if budget.period.unit != "lifetime" else "",
        "alerts at": ", ".join(f"{share} %" for share in budget.alerts),
        "remarks": _remarks(budget, (), opened=opened),
    }
    click.echo(printable(budget.budget_id))
    for label, text in facts.items():
        if text:
            click.echo(printable(f"{label:<10}{text}"))
    columns = [("account", "left"), ("limit", "right"), ("spent", "right"), ("held", "right"), ("left", "right")]
    rows = [
        [
            one.value or "all",
            *[budget.shown(amount) for amount in (one.limit, one.spent, one.held, one.left)],
            f"{one.percent} %",
            _minute(one.resets_at),
            _remarks(None, (one,), shown=budget),
        ]
        for one in stands
    ]
    if rows:
        show_table("", [*columns, ("used", "right"), ("resets", "left"), ("remarks", "left")], rows)
    else:
        click.echo("No call has concerned it in this period.")


def _json(budget: Budget, stands: tuple[Standing, ...], opened: frozenset[str]) -> dict[str, Any]:
    """A budget as the gateway's API gives it."""
    from tallystick.metering.advisory import advisory

    return {**budget_json(budget, stands), "advisory": list(advisory(budget, opened))}


def _list_row(budget: Budget, stands: tuple[Standing, ...], opened: frozenset[str]) -> list[str]:
    from tallystick.metering.rules import limit_words

    # Of a budget that has one account for each value the fullest is shown.
    fullest = max(stands, key=lambda one: (one.percent, one.spent), default=None)
    figures = ["", "", "", ""]
    if fullest is not None:
        figures = [*[budget.shown(amount) for amount in (fullest.spent, fullest.held, fullest.left)]]
        figures.append(f"{fullest.percent} %")
    scope = _scope(budget)
    if budget.each and fullest is not None:
        scope += f" (fullest of {len(stands):,}: {fullest.value})"
    resets = _minute(None if fullest is None else fullest.resets_at)
    return [budget.budget_id, limit_words(budget), *figures, scope, resets, _remarks(budget, stands, opened=opened)]


def _scope(budget: Budget) -> str:
    parts = [f"{name}={value}" for name, value in budget.scope.items()]
    return " ".join([*parts, *(f"each {name}" for name in budget.each)])


def _remarks(
    budget: Budget | None,
    stands: tuple[Standing, ...],
    *,
    shown: Budget | None = None,
    opened: frozenset[str] = frozenset(),
) -> str:
    from tallystick.metering.advisory import advice, advisory

    parts = []
    if budget is not None:
        said = advice(advisory(budget, opened))
        parts += [said] if said else []
        parts += ["soft"] if not budget.hard else []
        parts += ["paused"] if budget.paused else []
        if budget.raised_until is not None and front.now() < budget.raised_until:
            parts.append(f"raised by {budget.shown(budget.raised_by)} until {_minute(budget.raised_until)}")
    unit = shown or budget
    for name in ("suspect", "overdraft"):
        amount = sum(getattr(one, name) for one in stands)
        if amount and unit is not None:
            parts.append(f"{unit.shown(amount)} {name}")
    return ", ".join(parts)


def _charges(charges: tuple[Charge, ...], budgets: dict[str, Budget]) -> str:
    from tallystick.metering.claims import money_words, shown_value

    return ", ".join(
        f"{money_words(budgets.get(one.budget_id), one.amount)} of {one.budget_id}{shown_value(one.value)}"
        for one in charges
    )


def _minute(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _percentages(text: str | None) -> list[int]:
    parts = [] if text is None else text.replace("%", "").split(",")
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise InputError(f"{text!r} are not percentages.", todo="Write --alert 50,80,100.") from None
