"""Every ```python and ```console block of the README and of docs/ is run, in order, one fresh place per page.

A console line `$ command` is run by bash with `tally` at hand; lines that follow are what it prints, `...` standing for
anything. `# exit 3` at the end of a command expects that exit code. A block that cannot be run says so and why:
```console no-run: needs a network
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<info>(?:python|console)\b[^\n]*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
SOON = timedelta(days=60)

DRIVER = r"""
import contextlib, io, json, subprocess, sys
space = {"__name__": "__main__"}
results = []
for block in json.load(open(sys.argv[1])):
    if block["language"] == "python":
        exec(compile(block["body"], block["place"], "exec"), space)
        continue
    for command in block["commands"]:
        done = subprocess.run(["bash", "-c", command["line"]], capture_output=True, text=True)
        results.append({**command, "code": done.returncode, "stdout": done.stdout, "stderr": done.stderr})
json.dump(results, open(sys.argv[2], "w"))
"""


def page_id(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """The blocks of a page that are run: language, text, line, commands."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        language, _, remark = match["info"].partition(" ")
        number = text.count("\n", 0, match.start()) + 1
        if remark.startswith("no-run"):
            continue
        body = textwrap.dedent(match["body"])
        yield {
            "language": language,
            "body": body,
            "place": f"{page_id(page)}:{number}",
            "commands": list(commands(body, f"{page_id(page)}:{number}")) if language == "console" else [],
        }


def commands(body, place):
    """The commands of a console block with the output that the page shows."""
    found = None
    for line in body.splitlines():
        if line.startswith("$ "):
            if found:
                yield found
            found = {"line": line[2:], "expected": [], "place": place, "exit": 0}
        elif line.startswith("> ") and found and not found["expected"]:
            found["line"] += "\n" + line[2:]
        elif found:
            found["expected"].append(line)
        if found and (stated := re.search(r"# exit (\d+)\b", found["line"])):
            found["exit"] = int(stated[1])
    if found:
        yield found


def same(expected, printed):
    """Whether the printed lines are those that the page shows; `...` stands for anything, line ends for nothing."""

    def tidy(lines):
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    parts = tidy(expected).split("...")
    return re.fullmatch(".*".join(map(re.escape, parts)), tidy(printed.splitlines()), re.DOTALL) is not None


@pytest.fixture
def place(tmp_path):
    """An empty folder with a ledger and a configuration of its own, and the environment for it."""
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "tally"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tallystick.cli "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "here").mkdir()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "TALLY_LEDGER": str(tmp_path / "ledger.db"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TZ": "UTC",
    }
    return tmp_path, environment


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_snippet_does_what_the_page_says(page, place):
    found = list(blocks(page))
    if not found:
        return
    folder, environment = place
    (folder / "blocks.json").write_text(json.dumps(found))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder / "blocks.json"), str(folder / "results.json")],
        capture_output=True, text=True, env=environment, cwd=folder / "here", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for result in json.loads((folder / "results.json").read_text()):
        shown = f"{result['place']}: $ {result['line']}\n{result['stdout']}{result['stderr']}"
        assert result["code"] == result["exit"], shown
        assert "Traceback" not in result["stderr"], shown
        if result["expected"]:
            assert same(result["expected"], result["stdout"] + result["stderr"]), shown


def test_blocks_that_are_not_run_say_why():
    silent = []
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text()):
            _, _, remark = match["info"].partition(" ")
            if remark and not re.match(r"no-run[:,]? \S.{7,}", remark):
                silent.append(f"{page_id(page)}: {match['info']}")
    assert silent == []


def test_wildcards():
    assert same(["a ... c"], "a b c\n")
    assert same(["first", "...", "last  "], "first\n2\n3\nlast\n\n")
    assert not same(["a"], "a b")
    assert list(commands("$ x # exit 3\nout\n$ y \\\n> z\n", "p"))[1]["line"] == "y \\\nz"


def verbs(command, path):
    """Every command below one, as the words to type."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from verbs(command.get_command(context, name), f"{path} {name}")
    else:
        yield path


def test_every_command_is_in_the_docs():
    from tallystick.cli import cli

    text = "\n".join(page.read_text() for page in PAGES)
    assert [words for words in verbs(cli, "tally") if not re.search(rf"\b{words}\b", text)] == []


def test_every_command_shows_an_example():
    from tallystick.cli import cli

    def helps(command, path):
        # click keeps the help option that the first context asked for, so this must ask as the command line does.
        context = click.Context(command, info_name=path, **cli.context_settings)
        yield path, command.get_help(context)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                yield from helps(command.get_command(context, name), f"{path} {name}")

    assert [path for path, text in helps(cli, "tally") if "Example" not in text] == []


def test_links_lead_somewhere():
    lost = []
    for page in [*PAGES, *(p for p in [ROOT / "CONTRIBUTING.md"] if p.exists())]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                lost.append(f"{page_id(page)} -> {target}")
    assert lost == []


def retirements():
    """Model ids and the days on which they end at the provider that a bare name means, from the bundled catalogue."""
    snapshot = json.loads((ROOT / "src/tallystick/catalog/snapshot.json").read_text())
    order = {provider: place for place, provider in enumerate(snapshot["preference"])}
    seen = set()
    for _, models in sorted(snapshot["models"].items(), key=lambda item: order.get(item[0], len(order))):
        for model, row in models.items():
            if model not in seen and row.get("retires"):
                yield model, date.fromisoformat(row["retires"][:10])
            seen.add(model)


def ending(text, ends, today):
    """The models a text shows that end within 60 days of `today`, or have ended."""
    return sorted(
        {
            model
            for model, end in ends
            if end - today < SOON and re.search(rf"(?<![\w.:@/-]){re.escape(model)}(?![\w:@-]|\.\w)", text)
        }
    )


def test_ending_models_are_found_in_a_text():
    ends = [("old-1", date(2026, 12, 1)), ("new-1", date(2027, 12, 1))]
    assert ending("use old-1 and new-1", ends, date(2026, 11, 1)) == ["old-1"]
    assert ending("use old-1.", ends, date(2026, 10, 2)) == []
    assert ending("use old-1.", ends, date(2026, 10, 3)) == ["old-1"]
    assert ending("use old-1-mini and very-old-1 and old-1.5", ends, date(2026, 11, 30)) == []


def test_the_readme_shows_no_model_that_is_about_to_end():
    assert ending((ROOT / "README.md").read_text(), list(retirements()), datetime.now(UTC).date()) == []
