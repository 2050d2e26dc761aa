"""tally scan, as people and programs see it."""

import json

import pytest
from click.testing import CliRunner
from logdesk import PROJECT, claude, codex, codex_head, tokens

from tallystick import front
from tallystick.cli import cli


def tally(*args):
    return CliRunner().invoke(cli, list(args), standalone_mode=False)


@pytest.fixture
def home(desk):
    one = tokens(100, 20, 30, 5)
    desk.write(f"{PROJECT}/s1.jsonl", claude(version="2.1.30"), claude("msg_2", message={"model": "no-such-model"}))
    desk.write(".codex/sessions/r.jsonl", *codex_head(), codex(1, one, one))
    (desk.home / ".qwen/tmp").mkdir(parents=True)
    return desk


def test_a_table_for_people(home):
    done = tally("scan", "--home", str(home.home))
    assert done.return_value == 0
    lines = done.output.splitlines()
    claude_code = next(line for line in lines if line.startswith("Claude Code"))
    assert claude_code.split()[2:6] == ["1", "2", "2", "52"]
    assert "1 call without a price" in claude_code
    assert "1 call counted at least" in claude_code
    assert "Not a bill" in done.output
    assert "Found, but not supported yet, so not counted: Qwen Code." in done.output
    assert "tally report" in done.output
    assert "owed" not in lines[0]


def test_again_and_json_for_programs(home):
    tally("scan", "--home", str(home.home))
    done = tally("scan", "--home", str(home.home), "--json")
    value = json.loads(done.output)
    assert (value["schema"], value["complete"], value["unsupported"]) == (1, True, ["Qwen Code"])
    first, second = value["tools"]
    assert (first["tool"], first["files"], first["files_read"], first["new"], first["calls"]) == (
        "claude-code",
        1,
        0,
        0,
        2,
    )
    assert (second["usage"], second["owed"]) == (
        {"input": 80, "cache_read": 20, "output": 25, "reasoning": 5},
        {"usd": "0"},
    )
    assert second["api_equivalent"] == {"usd": "0.0005635"}
    assert (first["unpriced"], first["lower_bound"]) == (1, 1)


def test_money_that_is_owed_stands_apart(home):
    done = tally("scan", "--home", str(home.home), "--owed")
    assert "owed" in done.output.splitlines()[0]
    with front.open(read_only=True) as ledger:
        assert all(entry.owed for entry in ledger.read())


def test_what_is_left_out_is_said_and_makes_it_incomplete(home, tmp_path):
    (tmp_path / "away").mkdir()
    (home.home / ".claude/projects/away").symlink_to(tmp_path / "away")
    home.append(f"{PROJECT}/s1.jsonl", claude("msg_3", usage={"output_tokens": -5}))
    done = tally("scan", "--home", str(home.home))
    assert done.return_value == 4
    assert "1 lines whose numbers, dates or nesting make no sense were left out" in done.output
    assert "a link that leads out of the folder" in done.output


def test_half_a_line_is_no_reason_for_concern(home):
    home.append(f"{PROJECT}/s1.jsonl", '{"message": {"usage": {"output_tokens":', claude("msg_3"))
    done = tally("scan", "--home", str(home.home))
    assert done.return_value == 0
    assert "lines that are not JSON" in done.output


def test_since_limits_what_is_shown_only(home):
    done = tally("scan", "--home", str(home.home), "--since", "2026-11-18", "--json")
    assert [tool["calls"] for tool in json.loads(done.output)["tools"]] == [0, 0]
    with front.open(read_only=True) as ledger:
        assert len(list(ledger.read())) == 3


def test_nothing_found(tmp_path):
    done = tally("scan", "--home", str(tmp_path))
    assert done.output.startswith("No logs of Claude Code")
    assert done.return_value == 0


def test_without_a_home_the_environment_is_asked(home, monkeypatch):
    monkeypatch.setenv("CODEX_HOME", str(home.home / ".codex"))
    value = json.loads(tally("scan", "--json").output)
    assert [tool["tool"] for tool in value["tools"]] == ["codex"]


def test_tables_and_exports(tmp_path):
    table = tmp_path / "calls.csv"
    table.write_text("model,a,b\ngpt-4o,1000,100\n,1,1\n")
    done = tally("scan", "--csv", str(table), "--map", "model=model,input=a", "--map", "output=b")
    assert done.return_value == 4
    assert "2 rows: 1 calls entered, 0 were there already." in done.output
    assert "1 rows were left out, first row 2: rows without a model." in done.output
    export = tmp_path / "spend.json"
    row = {
        "request_id": "r",
        "spend": 0.1,
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "startTime": "2026-11-01",
        "model": "gpt-4o",
    }
    export.write_text(json.dumps([row]))
    done = tally("scan", "--export", str(export))
    assert "The file says these cost $0.1" in done.output
    assert json.loads(tally("scan", "--export", str(export), "--json").output)["known"] == 1


@pytest.mark.parametrize("args", [("--map", "model=x"), ("--csv", "a", "--export", "b"), ("--csv", "a", "--map", "x")])
def test_options_that_contradict_each_other(args):
    assert CliRunner().invoke(cli, ["scan", *args]).exit_code == 2
