"""The verbs as click knows them, and what becomes of their errors."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from tallystick import __version__
from tallystick.cli import MAIN, MORE, printable
from tallystick.errors import TallyError

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


def run_verb(argv: Sequence[str] | None = None) -> int:
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
