"""The command line. One file per verb; a verb is imported when it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from tallystick import __version__
from tallystick.errors import TallyError

MAIN = {
    "scan": "What your coding agents have used, from their own logs.",
    "report": "What was spent, by model, run or tag.",
    "price": "What a call costs, line by line.",
    "compare": "One text across models, or two prompts on one model.",
    "rates": "The rate catalogue: show, set, check, diff, update.",
}
MORE = {
    "count": "How many tokens a text has.",
    "explain": "The whole pipeline on one text, stage by stage.",
    "estimate": "What a call will cost before it is made.",
    "record": "Write a call into the ledger.",
    "log": "The latest calls in the ledger.",
    "reconcile": "A provider's own report against the ledger.",
    "export": "The calls in the ledger as CSV, JSON lines or Parquet.",
    "ledger": "Look after the ledger: verify, backup, restore, compact, info.",
    "mcp": "Answer an agent's questions about cost (read-only).",
}
INTERRUPTED = 130


class Verbs(click.Group):
    """The commands, loaded by name; `--help` shows the main ones first and the rest under "more"."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, main ones first."""
        del ctx
        return [*MAIN, *MORE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a verb's module and returns its command."""
        del ctx
        if cmd_name not in MAIN and cmd_name not in MORE:
            return None
        command: click.Command = importlib.import_module(f"tallystick.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb, or names the nearest one."""
        if args and args[0] not in MAIN and args[0] not in MORE and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], [*MAIN, *MORE], 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists, without importing any verb."""
        del ctx
        for title, verbs in (("Commands", MAIN), ("More", MORE)):
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    epilog="Every command has --help with an example.\n\nExample: tally price gpt-4o --input 1000 --output 100",
)
@click.version_option(__version__, prog_name="tally")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Exact, live, enforceable cost tracking for LLM and agent applications."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 ok, 1 failed, 2 bad command line, 3 unpriced or unknown model, 4 incomplete,
    5 refused by a budget, 6 ledger unusable."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; no error reaches the user as a traceback."""
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="tally", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        complain(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("tally: interrupted.", err=True)
        return INTERRUPTED
    except TallyError as error:
        click.echo(f"tally: {printable(str(error))}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`tally log | head`): that is how it says that it has seen enough.
        abandon_output()
        return 0
    except OSError as error:
        abandon_output()
        where = f" ({printable(str(error.filename))})" if error.filename else ""
        click.echo(f"tally: {error.strerror or error}{where}. The output is not complete.", err=True)
        return 1


def complain(error: click.ClickException) -> None:
    """A mistake on the command line, in one or two lines on standard error."""
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
    click.echo(f"tally: {printable(error.format_message())}", err=True)
    if context is not None:
        click.echo(f"Try '{context.command_path} --help'.", err=True)


def abandon_output() -> None:
    """Keeps the interpreter from writing, and complaining, again when it closes its output at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Text from elsewhere, safe for a terminal: control and format characters are shown as escapes, newlines stay."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in whole
    )
