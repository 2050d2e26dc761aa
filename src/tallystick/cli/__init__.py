"""The command line. One file per verb; a verb is imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from tallystick import __version__
from tallystick.errors import TallyError

MAIN = {
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
    "log": "The calls in the ledger, newest first.",
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
    epilog='Example: tally price gpt-4o --input 1000 --output 100',
)
@click.version_option(__version__, prog_name="tally")
def cli() -> None:
    """Exact, live, enforceable cost tracking for LLM and agent applications."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 ok, 1 failed, 2 bad command line, 3 unpriced or unknown model, 4 incomplete,
    5 refused by a budget, 6 ledger unusable."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; no error reaches the user as a traceback."""
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="tally", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("tally: interrupted.", err=True)
        return INTERRUPTED
    except TallyError as error:
        click.echo(f"tally: {printable(str(error))}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`tally log | head`): leave quietly, and keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"tally: {error.strerror or error}{where}. Nothing was written.", err=True)
        return 1


def printable(text: str) -> str:
    """Text from elsewhere, safe for a terminal: control characters are shown as escapes, newlines stay."""
    return "".join(
        char if char == "\n" or (char.isprintable() and char not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
        else char.encode("unicode_escape").decode("ascii")
        for char in text.encode("utf-8", "replace").decode("utf-8")
    )  # fmt: skip
