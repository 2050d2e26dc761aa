"""docs/reference/commands.md says what the commands say of themselves. `python tests/cli/test_reference.py` writes it."""

from pathlib import Path

import click

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "commands.md"
HEAD = """# Commands

Every command has `--help` with an example, and returns [an exit code](../how-to/use-in-scripts.md). `tally --version`
says which version this is.
"""


def verbs(command, path):
    """Every command below one, as the words to type."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from verbs(command.get_command(context, name), f"{path} {name}")
    else:
        yield path, command


def section(path, command):
    """One command: how it is called, what it does, its options."""
    context = click.Context(command, info_name=path)
    arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option)]
    yield f"\n## {path}\n\n`{' '.join([path, *arguments])}`\n\n{' '.join((command.help or '').split())}\n"
    shown = [option.get_help_record(context) for option in options if not option.hidden]
    if shown:
        yield "\n| option | meaning |\n|---|---|\n"
    for names, meaning in shown:
        yield "| `{}` | {} |\n".format(names.replace("|", "\\|"), " ".join(meaning.split()).replace("|", "\\|"))
    hidden = [f"`{option.opts[0]}`" for option in options if option.hidden]
    if hidden:
        yield f"\nOther kinds of usage have an option, too: {', '.join(hidden)}.\n"


def page():
    """The whole page."""
    from tallystick.cli import cli

    return HEAD + "".join("".join(section(*one)) for one in verbs(cli, "tally"))


def test_the_reference_is_what_the_commands_say():
    assert PAGE.read_text() == page(), "write it anew: python tests/cli/test_reference.py"


if __name__ == "__main__":
    PAGE.write_text(page())
