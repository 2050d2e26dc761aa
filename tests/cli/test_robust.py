"""The command line among other programs, and on a bad day: pipes, full disks, missing homes, malformed input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest


def test_exit_codes_of_the_real_process(shell):
    assert shell("price", "gpt-4o", "--input", 1).code == 0
    assert shell("price", "gpt-4o").code == 2
    assert shell("price", "gpt-4q", "--input", 1).code == 3
    assert shell("report", env={"TALLY_LEDGER": "/dev/null/x"}).code in (0, 6)
    assert shell("record", "gpt-4o", "--input", 1, env={"TALLY_LEDGER": "/dev/null/x"}).code == 6


def test_help_is_short_and_complete(tally):
    for words in ((), ("--help",), ("-h",)):
        said = tally(*words)
        assert said.code == 0
        for verb in ("report", "price", "compare", "rates", "count", "explain", "estimate", "record", "log"):
            assert f"\n  {verb} " in said.out
    assert tally("rates").code == 0
    for words in (("price",), ("report",), ("rates", "set"), ("rates", "update")):
        assert "Example: tally" in tally(*words, "--help").out
    assert tally("--version").out.startswith("tally, version ")


def test_every_listed_verb_loads():
    from tallystick.cli import cli

    context = click.Context(cli)
    for name in cli.list_commands(context):
        assert isinstance(cli.get_command(context, name), click.Command)


def test_a_mistyped_verb_names_the_nearest(tally):
    said = tally("prise")
    assert said.code == 2
    assert "'price'" in said.err


def test_a_reader_that_goes_away(shell, tmp_path):
    shell("record", "gpt-4o", "--input", 1)
    done = subprocess.run(
        f"for i in 1 2 3 4 5 6 7 8 9; do '{sys.executable}' -m tallystick.cli rates show gpt-4o --json; done | head -1",
        shell=True, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output(shell):
    with Path("/dev/full").open("wb") as full:
        said = shell("price", "gpt-4o", "--input", 1, stdout=full)
    assert said.code == 1
    assert "No space left" in said.err
    assert said.err.count("\n") == 1


def test_interrupted():
    program = (
        "import sys, tallystick.cli as cli, tallystick.cli.shared as shared\n"
        "read = shared._read\n"
        "def waiting(*given):\n"
        "    print('up', flush=True)\n"
        "    return read(*given)\n"
        "shared._read = waiting\n"
        "cli.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "count", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout.read(2) == b"up"
        process.send_signal(signal.SIGINT)
        process.wait(20)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert said.strip() == "tally: interrupted."


BAD_JSON = [
    "{bad", '"text"', "3", "null", "[]", "[1]", '{"prompt_tokens": NaN}', '{"prompt_tokens": Infinity}',
    '{"prompt_tokens": -5, "completion_tokens": 1}', '{"prompt_tokens": 1.5, "completion_tokens": 1}',
    '{"prompt_tokens": 99999999999999999999, "completion_tokens": 1}',
    '{"prompt_tokens": 1' + "0" * 5000 + "}", "[" * 100_000, '{"prompt_tokens": true, "completion_tokens": 1}',
    '{"prompt_tokens": "12", "completion_tokens": []}', '{"input": -1}', '{"input": 1e400}', '{"nothing": 1}',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: text[:30])
def test_a_bad_usage_object_is_exit_2(tally, text):
    for verb in ("price", "record"):
        said = tally(verb, "gpt-4o", "--usage", "-", stdin=text)
        assert said.code == 2, said
        assert said.err.startswith(("tally: ", "Usage: "))
    assert tally("log").out == "No calls.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("price", "gpt-4o"),
        ("price", "gpt-4o", "--input", "-1"),
        ("price", "gpt-4o", "--input", "9" * 30),
        ("price", "gpt-4o", "--input", "9" * 5000),
        ("price", "gpt-4o", "--input", "1", "--at", "someday"),
        ("price", "gpt-4o", "--input", "1", "--at", "0001-01-01T00:00:00+14:00"),
        ("price", "gpt-4o", "--input", "1", "--context", "novalue"),
        ("price", "gpt-4o", "--fee", "web"),
        ("price", "gpt-4o", "--fee", "web=²"),
        ("price", "gpt-4o", "--fee", "WEB!=1"),
        ("price", "gpt-4o", "--input", "1", "--provider", ""),
        ("price", "", "--input", "1"),
        ("price", "x" * 600, "--input", "1"),
        ("price", "gpt-4o", "--usage", "no-such-file"),
        ("price", "gpt-4o", "--usage", "/"),
        ("count",),
        ("count", "--file", "no-such-file"),
        ("count", "--file", "/"),
        ("count", "text", "--file", "no-such-file"),
        ("count", "-f", "x" * 5000),
        ("explain", "--rate", "much", "hello"),
        ("explain", "--rate", "-1", "hello"),
        ("explain", "--rate", "1e999999", "hello"),
        ("compare", "no-such-file", "-m", "gpt-4o"),
        ("compare", "--text", "a", "b", "-m", "gpt-4o,gpt-5.5"),
        ("compare", "--text", "a", "-m", ","),
        ("compare", "--text", "a"),
        ("estimate", "hello", "--max-output", "0"),
        ("record", "gpt-4o", "--input", "1", "--tag", "novalue"),
        ("record", "gpt-4o", "--input", "1", "--tag", "a=" + "x" * 300),
        ("record", "gpt-4o", "--input", "1", "--unknown-usage"),
        ("log", "--since", "999999999w"),
        ("log", "-n", "0"),
        ("report", "--by", "model", "--by", "model"),
        ("rates", "check", "no-such-file"),
        ("rates", "diff", "no-such-file"),
        ("rates", "show", "gpt-4o", "--at", "x"),
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_bad_command_lines_are_exit_2_with_a_sentence(tally, words):
    said = tally(*words)
    assert said.code == 2
    assert said.err
    assert said.out == ""


def test_not_a_snapshot(tally, tmp_path):
    (tmp_path / "x").write_text("{}")
    assert tally("rates", "diff", tmp_path / "x", tmp_path / "x").code == 1


def test_without_a_home(tally, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TALLY_LEDGER"):
        monkeypatch.delenv(name)
    assert tally("price", "gpt-4o", "--input", 1).code == 0
    for words in (("record", "gpt-4o", "--input", 1), ("report",), ("rates", "set", "x", "--input", 1)):
        said = tally(*words)
        assert said.code == 2
        assert "HOME" in said.err


def test_a_folder_that_is_gone(shell, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", f"cd '{gone}' && rmdir '{gone}' && exec '{sys.executable}' -m tallystick.cli price gpt-4o --input 1"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_configuration_in_the_folder_and_the_environment(tally, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tally.toml").write_text('[rates.mine]\ninput = "1"\n')
    assert tally("price", "mine", "--input", 1_000_000, "--json").json["amount"] == {"usd": "1"}
    (tmp_path / "other.toml").write_text('[rates.mine]\ninput = "2"\n')
    monkeypatch.setenv("TALLY_CONFIG", str(tmp_path / "other.toml"))
    assert tally("price", "mine", "--input", 1_000_000, "--json").json["amount"] == {"usd": "2"}
    monkeypatch.setenv("TALLY_CONFIG", str(tmp_path / "none.toml"))
    assert tally("price", "mine", "--input", 1).code == 2


def test_an_unknown_key_names_the_nearest(tally, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for text, near in (("ratez = 1", "rates"), ('[rates.mine]\ninputs = "1"', "input"), ('timezone = "Mars"', "Mars")):
        (tmp_path / "tally.toml").write_text(text)
        said = tally("price", "gpt-4o", "--input", 1)
        assert said.code == 2
        assert f"'{near}'" in said.err


def test_a_file_of_many_megabytes_is_not_loaded_whole(tmp_path):
    file = tmp_path / "big"
    with file.open("w") as out:
        for _ in range(40):
            out.write("The quick brown fox jumps over the lazy dog. " * 23_000)
    program = (
        "import resource, sys; from tallystick.cli import run; run(['count', 'wärm']);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"run(['count', '-f', {str(file)!r}]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[1].endswith("exact (o200k_base)")
    assert int(lines[2]) < 30_000  # kilobytes, of 41 MB


def test_a_progress_bar_only_where_there_is_a_terminal(terminal, shell, tmp_path, monkeypatch):
    file = tmp_path / "text"
    file.write_text("hello " * 1000)
    assert shell("count", "-f", file).err == ""
    quick = terminal("count", "-f", str(file))
    assert "counting" not in quick
    from tallystick.cli import count

    class Screen:
        def isatty(self):
            return True

        def write(self, text):
            drawn.append(text)

        def flush(self):
            pass

    drawn = []
    monkeypatch.setattr(count, "PATIENCE", -1)
    monkeypatch.setattr(count.sys, "stderr", Screen())
    with count.progress_bar(str(file)) as advance:
        for _ in range(6):
            advance(1000)
    assert "counting" in "".join(drawn)
    assert "100%" in "".join(drawn)


def test_price_needs_neither_rich_nor_a_tokenizer():
    program = (
        "import sys; from tallystick.cli import run; run(['price', 'gpt-4o', '--input', '1']);"
        "print(json.dumps(sorted(sys.modules))) if (json := __import__('json')) else 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {
        "rich",
        "tiktoken",
        "sqlite3",
        "difflib",
        "hashlib",
        "tomllib",
        "importlib.resources",
        "zipfile",
    }


def test_an_output_that_knows_few_characters(shell):
    said = shell("explain", "Grüße, 世界", env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert said.code == 0
    assert shell("compare", "--text", b"# \xff\nhello", "# b", "-m", "gpt-4o", "--json").code == 0
