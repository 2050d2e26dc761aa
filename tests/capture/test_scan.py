"""Real files in a folder, through the front door, into a ledger."""

import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from logdesk import PROJECT, claude, codex, codex_head, tokens

from tallystick.capture.logs import files
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry

CASES = {case["name"]: case for case in json.loads((Path(__file__).parents[1] / "data/golden_prices.json").read_text())}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("log_claude_code_split_blocks", f"{PROJECT}/s1.jsonl"),
        ("log_codex_reemitted_token_count", ".codex/sessions/2026/01/01/rollout-x.jsonl"),
    ],
)
def test_golden_logs_cost_what_the_bill_says(desk, name, file):
    desk.write(file, *CASES[name]["usage"])
    desk.scan()
    (entry,) = desk.entries()
    assert entry.amount == Money.usd(CASES[name]["expected_usd"])


def test_an_entry_says_what_the_log_says(desk):
    desk.write(f"{PROJECT}/s1.jsonl", claude())
    desk.scan()
    (entry,) = desk.entries()
    assert (entry.provider, entry.model, entry.requested_model) == (
        "anthropic",
        "claude-opus-4-5",
        "claude-opus-4-5-20251101",
    )
    assert entry.usage == Usage(input=3, cache_read=5, cache_write=11, output=7)
    assert (entry.source, entry.owed, entry.quality, entry.api) == ("log", False, "exact", "log.claude_code")
    assert dict(entry.tags) == {"tool": "claude-code", "project": "app", "session": "s1"}
    assert (entry.run_id, entry.parent_run, entry.step, entry.provider_response_id) == ("s1", None, "req_1", "msg_1")
    assert entry.started_at == datetime(2026, 11, 17, 7, 47, tzinfo=UTC)
    assert entry.usage_raw is None
    total = desk.total("claude-code")
    assert total.cost == Money(0)
    assert total.not_owed == entry.amount


def test_owed_is_said_by_whoever_pays_by_the_call(desk):
    desk.write(f"{PROJECT}/s1.jsonl", claude())
    desk.scan(owed=True)
    assert [entry.owed for entry in desk.entries()] == [True]


class TestClaudeCode:
    def test_one_response_is_several_lines(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(output=1), claude(output=300, second=2), claude(output=40, second=3))
        assert desk.tool().calls == 1
        assert [entry.usage["output"] for entry in desk.entries()] == [300]

    def test_the_earliest_line_gives_the_time_and_absurd_times_are_counted(self, desk):
        lines = [claude(second=5), claude(second=2), claude(second=9), claude(timestamp="2027-11-17T07:47:00Z")]
        desk.write(f"{PROJECT}/s1.jsonl", *lines)
        found = desk.tool()
        assert [one.count for one in found.refused] == [1]
        assert [entry.started_at.second for entry in desk.entries()] == [2]

    def test_what_decided_the_price_is_kept(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(usage={"speed": "fast"}), claude("msg_2"), claude("msg_3"))
        desk.scan()
        found = {entry.provider_response_id: dict(entry.context) for entry in desk.entries()}
        assert found == {"msg_1": {"speed": "fast"}, "msg_2": {}, "msg_3": {}}

    def test_old_versions_are_a_lower_bound(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(version="2.1.30"), claude("msg_2"), claude("msg_3", version="absent"))
        desk.scan()
        assert sorted(entry.quality for entry in desk.entries()) == ["exact", "lower_bound", "lower_bound"]

    def test_copies_in_other_files_and_folders_are_the_same_call(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(), claude("msg_2"))
        desk.write(f"{PROJECT}/s2.jsonl", claude(sessionId="s2"), claude("msg_3", sessionId="s2"))
        desk.write(".config/claude/projects/-other/s3.jsonl", claude("msg_2", output=90))
        desk.scan()
        assert sorted(entry.usage["output"] for entry in desk.entries()) == [7, 7, 90]

    def test_another_request_id_is_another_call(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(), claude(request="req_2"), claude(request="absent"))
        assert desk.tool().calls == 3

    def test_a_side_chain_may_repeat_a_response_under_another_request_id(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        desk.write(f"{PROJECT}/s1/subagents/agent-a.jsonl", claude(request="req_9", isSidechain=True, agentId="a"))
        desk.scan()
        (entry,) = desk.entries()
        assert (entry.run_id, entry.step) == ("s1", "req_1")

    @pytest.mark.parametrize("aside_first", [True, False])
    def test_so_it_may_in_a_later_scan(self, desk, aside_first):
        main = (f"{PROJECT}/s1.jsonl", claude(timestamp="2026-11-20T07:00:00Z"))
        aside = (
            f"{PROJECT}/s1/subagents/agent-a.jsonl",
            claude(request="req_9", isSidechain=True, agentId="a", timestamp="2026-11-20T07:00:00Z", output=9),
        )
        for name, line in (aside, main) if aside_first else (main, aside):
            desk.write(name, line)
            desk.scan()
        assert [entry.usage["output"] for entry in desk.entries()] == [9]

    def test_sub_agents_are_runs_of_their_own(self, desk):
        desk.write(f"{PROJECT}/s1/subagents/agent-a.jsonl", claude(isSidechain=True, agentId="a1"))
        desk.write(f"{PROJECT}/s1/deep/er/still.jsonl", claude("msg_2", second=1))
        desk.scan()
        first, second = desk.entries()
        assert (first.run_id, first.parent_run, first.tags["session"]) == ("s1/a1", "s1", "s1")
        assert second.run_id == "s1"

    def test_lines_without_a_message_id_are_never_joined(self, desk):
        line = claude(message={"id": None})
        desk.write(f"{PROJECT}/s1.jsonl", line, line)
        desk.write(f"{PROJECT}/s2.jsonl", line)
        assert desk.tool().calls == 3
        assert desk.tool().written.new == 0

    def test_what_is_no_call(self, desk):
        desk.write(
            f"{PROJECT}/s1.jsonl", claude(message={"model": "<synthetic>"}), {"type": "summary"}, "", "garbage",
            claude(toolUseResult={"usage": {"output_tokens": 5}}, message={"usage": None}), claude(timestamp="absent"),
        )  # fmt: skip
        assert desk.tool().calls == 0

    def test_caches_tiers_speed_fees_and_places(self, desk):
        usage = {
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 7}, "service_tier": "priority",
            "speed": "fast", "inference_geo": "us", "server_tool_use": {"web_search_requests": 2},
        }  # fmt: skip
        desk.write(f"{PROJECT}/s1.jsonl", claude(usage=usage))
        desk.scan()
        (entry,) = desk.entries()
        counts = {
            "input": 3,
            "cache_read": 5,
            "cache_write_5m": 4,
            "cache_write_1h": 7,
            "output": 7,
            "fee:web_search": 2,
        }
        assert entry.usage == Usage(counts)
        assert entry.tier == "priority"

    def test_clouds_are_told_by_their_model_ids(self, desk):
        models = ("us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5@20251101", "my-own-model")
        desk.write(f"{PROJECT}/s1.jsonl", *[claude(f"msg_{model}", message={"model": model}) for model in models])
        desk.scan()
        found = {entry.requested_model: (entry.provider, entry.cost is None) for entry in desk.entries()}
        assert found == {models[0]: ("aws", False), models[1]: ("vertex", False), models[2]: ("anthropic", True)}

    def test_the_config_folder_may_be_named_even_twice(self, desk, tmp_path):
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        for folder in ("one", "two"):
            desk.write(f"{folder}/projects/-x/s.jsonl", claude(folder))
        desk.scan(env={"CLAUDE_CONFIG_DIR": f"{desk.home}/one, {desk.home}/two"})
        assert {entry.provider_response_id for entry in desk.entries()} == {"one", "two"}

    def test_a_project_is_the_folder_where_the_session_began(self, desk):
        cwds = {
            "/home/ada/work/app/src/deep": "app",
            "/elsewhere": "-home-ada-work-app",
            "absent": "-home-ada-work-app",
        }
        desk.write(f"{PROJECT}/s1.jsonl", *[claude(f"m{number}", cwd=cwd) for number, cwd in enumerate(cwds)])
        desk.scan()
        found = {entry.provider_response_id: entry.tags["project"] for entry in desk.entries()}
        assert list(cwds.values()) == [found[f"m{number}"] for number in range(3)]


class TestCodex:
    file = ".codex/sessions/2026/11/17/rollout-1.jsonl"

    def test_a_rollout(self, desk):
        one, two = tokens(100, 20, 30, 5), tokens(250, 60, 70, 9)
        desk.write(
            self.file, *codex_head(), codex(1, one, one), codex(2, one, one), codex(3, two, tokens(150, 40, 40, 4))
        )
        desk.write(".codex/archived_sessions/rollout-1.jsonl", *codex_head(), codex(1, one, one))
        assert desk.tool("codex").calls == 2
        first, second = desk.entries()
        assert first.usage == Usage(input=80, cache_read=20, output=25, reasoning=5)
        assert second.usage == Usage(input=110, cache_read=40, output=36, reasoning=4)
        assert (first.provider, first.model, first.step, first.run_id) == ("openai", "gpt-5.2", "t1", "c1")
        assert dict(first.tags) == {"tool": "codex", "project": "app", "session": "c1"}

    def test_the_home_may_be_named(self, desk):
        one = tokens(100, 20, 30, 5)
        desk.write("elsewhere/sessions/rollout-1.jsonl", *codex_head(), codex(1, one, one))
        assert desk.tool("codex", env={"CODEX_HOME": f"{desk.home}/elsewhere"}).calls == 1

    def test_reading_goes_on_in_the_middle_of_a_session(self, desk):
        one, two = tokens(100, 20, 30, 5), tokens(250, 60, 70, 9)
        desk.write(self.file, *codex_head(), codex(1, one, None))
        desk.scan()
        desk.append(self.file, codex(2, one, None), codex(3, two, None))
        desk.scan()
        assert [entry.usage.input_tokens for entry in desk.entries()] == [100, 150]
        assert {entry.model for entry in desk.entries()} == {"gpt-5.2"}

    def test_without_a_model_the_price_is_unknown(self, desk):
        one = tokens(100, 20, 30, 5)
        desk.write(self.file, codex(1, one, one))
        desk.scan()
        (entry,) = desk.entries()
        assert (entry.model, entry.provider, entry.cost, entry.run_id) == ("unknown", "openai", None, "rollout-1")

    def test_parts_larger_than_their_whole_are_unknown_usage(self, desk):
        one = tokens(10, 20, 30, 5)
        desk.write(self.file, *codex_head(), codex(1, one, one))
        desk.scan()
        (entry,) = desk.entries()
        assert (entry.usage, entry.quality) == (None, "unknown")


class TestGeminiCli:
    def message(self, **more):
        counts = {"input": 100, "output": 7, "cached": 40, "thoughts": 9, "tool": 0, "total": 116}
        return {
            "id": "m1",
            "type": "gemini",
            "timestamp": "2026-11-17T07:47:58Z",
            "model": "gemini-2.5-pro",
            "tokens": counts,
        } | more

    def test_a_chat_in_either_form(self, desk):
        desk.write(
            ".gemini/tmp/app/chats/session-1.json", {"sessionId": "g1", "messages": [self.message(), {"type": "user"}]}
        )
        growing = self.message(id="m2")
        less = growing | {"tokens": growing["tokens"] | {"output": 0, "total": 109}}
        desk.write(".gemini/tmp/app/chats/session-2.jsonl", {"sessionId": "g2"}, less, growing, '{broken "tokens"')
        desk.write(".gemini/tmp/app/logs.json", {"sessionId": "x"})
        assert desk.tool("gemini-cli").calls == 2
        for entry in desk.entries():
            assert entry.usage == Usage(input=60, cache_read=40, output=7, reasoning=9)
            assert entry.tags["project"] == "app"
            assert entry.cost is not None
        assert {entry.run_id for entry in desk.entries()} == {"g1", "g2"}

    def test_a_chat_that_grows(self, desk):
        name = ".gemini/tmp/app/chats/session-1.json"
        desk.write(name, {"sessionId": "g1", "messages": [self.message()]})
        desk.scan()
        desk.write(name, {"sessionId": "g1", "messages": [self.message(), self.message(id="m2")]})
        assert desk.tool("gemini-cli").written.new == 1
        jsonl = ".gemini/tmp/app/chats/session-2.jsonl"
        desk.write(jsonl, {"sessionId": "g2"})
        desk.scan()
        desk.append(jsonl, self.message(id="m3"), end="")
        desk.scan()
        assert [entry.run_id for entry in desk.entries()] == ["g1", "g1", "g2"]

    def test_a_chat_that_is_being_written(self, desk):
        path = desk.write(".gemini/tmp/app/chats/session-1.json", '{"sessionId": "g1", "messages": [')
        assert [refused.count for refused in desk.tool("gemini-cli").refused] == [1]
        path.write_text(json.dumps({"sessionId": "g1", "messages": [self.message()]}))
        assert desk.tool("gemini-cli").written.new == 1

    def test_the_home_may_be_named(self, desk):
        desk.write("there/tmp/app/chats/s.jsonl", self.message())
        assert desk.tool("gemini-cli", env={"GEMINI_CLI_HOME": f"{desk.home}/there"}).calls == 1


class TestOpenCode:
    def message(self, created=1_790_000_000_000, **more):
        counts = {"input": 10, "output": 20, "reasoning": 5, "cache": {"read": 3, "write": 2}, "total": 40}
        return {
            "role": "assistant", "modelID": "claude-sonnet-4-5", "providerID": "anthropic", "tokens": counts,
            "time": {"created": created, "completed": created + 5}, "path": {"root": "/home/ada/app"},
        } | more  # fmt: skip

    def database(self, desk, rows, table="message", sessions=True):
        path = desk.home / ".local/share/opencode/opencode.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        kind = ", type TEXT" if table == "session_message" else ""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (id TEXT PRIMARY KEY, session_id TEXT, data TEXT{kind})"
        )
        if sessions:
            connection.execute("CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, directory TEXT)")
            connection.execute("INSERT OR IGNORE INTO session VALUES ('s1', '/home/ada/shop')")
        for identity, message in rows.items():
            values = (
                identity,
                "s1",
                message if isinstance(message, str) else json.dumps(message),
                *(["assistant"] if kind else []),
            )
            connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)
        connection.commit()
        return connection

    @pytest.mark.parametrize(
        ("table", "sessions", "project"),
        [
            ("message", True, "shop"),
            ("message", False, "app"),
            ("session_message", True, "shop"),
            ("session_message", False, "app"),
        ],
    )
    def test_a_database(self, desk, table, sessions, project):
        busy = self.message(5, time={"created": 5})
        self.database(
            desk,
            {
                "a": self.message(),
                "fork": self.message(),
                "b": self.message(1_790_000_000_001),
                "u": {"role": "user"},
                "busy": busy,
            },
            table,
            sessions,
        ).close()
        assert desk.tool("opencode").calls == 2
        entry = desk.entries()[0]
        assert entry.usage == Usage(input=10, cache_read=3, cache_write=2, output=20, reasoning=5)
        assert (entry.provider, entry.run_id, entry.tags["project"]) == ("anthropic", "s1", project)

    def test_files_of_older_versions_hold_the_same_messages(self, desk):
        self.database(desk, {"a": self.message()}).close()
        desk.write(".local/share/opencode/storage/message/s1/a.json", self.message(id="a", sessionID="s1"))
        desk.write(".local/share/opencode/storage/message/s1/b.json", self.message(1_790_000_000_001, sessionID="s1"))
        desk.write(".local/share/opencode/storage/message/s1/c.json", "{")
        found = desk.tool("opencode")
        assert (found.calls, [refused.count for refused in found.refused]) == (2, [1])

    def test_a_database_that_is_open_elsewhere_and_grows(self, desk):
        connection = self.database(desk, {"a": self.message()})
        connection.execute("PRAGMA journal_mode = WAL")
        desk.scan()
        connection.execute("INSERT INTO message VALUES ('b', 's1', ?)", (json.dumps(self.message(1_790_000_000_001)),))
        connection.commit()
        assert desk.tool("opencode").written.new == 1
        assert desk.tool("opencode").read == 0
        connection.close()

    def test_a_hostile_database(self, desk):
        connection = self.database(desk, {"a": self.message(), "b": "not json"})
        connection.execute("CREATE VIEW evil AS SELECT load_extension('x')")
        connection.commit()
        connection.close()
        desk.write(".local/share/opencode/opencode-next.db", "this is no database")
        found = desk.tool("opencode")
        assert found.calls == 1
        assert sorted(refused.why for refused in found.refused) == [
            "databases that cannot be read",
            "lines that are not JSON",
        ]

    def test_the_folder_may_be_named(self, desk):
        desk.write("data/opencode/storage/message/s1/a.json", self.message(sessionID="s1"))
        assert desk.tool("opencode", env={"XDG_DATA_HOME": f"{desk.home}/data"}).calls == 1
        assert desk.tool("opencode", env={"OPENCODE_DATA_DIR": f"{desk.home}/data/opencode"}).files == 1


class TestAgain:
    def test_a_second_scan_reads_nothing(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(), claude("msg_2"))
        first = desk.tool()
        assert (first.files, first.read, first.written.new) == (1, 1, 2)
        second = desk.tool()
        assert (second.files, second.read, second.written.new, second.written.known) == (1, 0, 0, 0)

    def test_a_response_may_lie_across_two_scans(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(output=1))
        desk.scan()
        desk.append(f"{PROJECT}/s1.jsonl", claude(output=400, second=9), claude("msg_2", second=10))
        written = desk.tool().written
        assert (written.new, written.corrected) == (1, 1)
        first, _ = desk.entries()
        assert (first.usage["output"], first.started_at.second) == (400, 0)
        assert first.amount == Money.usd("0.01008625")
        assert len(desk.ledger.corrections(first.call_id)) == 1
        assert desk.ledger.verify() == []

    def test_a_lesser_usage_later_changes_nothing(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(output=400))
        desk.scan()
        desk.append(f"{PROJECT}/s1.jsonl", claude(output=1))
        written = desk.tool().written
        assert (written.new, written.corrected, written.known) == (0, 0, 1)

    def test_half_a_line_waits_for_its_other_half(self, desk):
        text = json.dumps(claude("msg_2"), separators=(",", ":"))
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        desk.append(f"{PROJECT}/s1.jsonl", text[:-30], end="")
        first = desk.tool()
        assert (first.calls, first.refused) == (1, ())
        desk.append(f"{PROJECT}/s1.jsonl", text[-30:], end="")
        assert desk.tool().written.new == 1
        desk.append(f"{PROJECT}/s1.jsonl", "", claude("msg_3"))
        assert desk.tool().written.new == 1
        assert len(desk.entries()) == 3

    def test_a_file_that_was_written_anew(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude(), claude("msg_2"))
        desk.scan()
        desk.write(f"{PROJECT}/s1.jsonl", claude("msg_3", output=10_000), claude("msg_2"), claude("msg_4"))
        assert desk.tool().written.new == 2
        desk.write(f"{PROJECT}/s1.jsonl", claude("msg_5"))
        assert desk.tool().written.new == 1
        assert len(desk.entries()) == 5

    def test_a_file_that_was_moved_or_deleted(self, desk):
        path = desk.write(f"{PROJECT}/s1.jsonl", claude(), claude("msg_2"))
        desk.scan()
        path.rename(path.with_name("s2.jsonl"))
        found = desk.tool()
        assert (found.written.new, found.written.known) == (0, 2)
        path.with_name("s2.jsonl").unlink()
        assert desk.tool().files == 0
        assert len(desk.entries()) == 2

    def test_new_prices_leave_old_entries_alone(self, desk):
        path = desk.write(f"{PROJECT}/s1.jsonl", claude())
        desk.scan()
        (entry,) = desk.entries()
        desk.ledger.state("import", next(iter(desk.ledger.states("import"))), None)
        other = type(desk)(desk.home)
        other.ledger.append(
            [
                Entry(
                    call_id=entry.call_id,
                    started_at=entry.started_at,
                    provider="anthropic",
                    model="m",
                    usage=entry.usage,
                    source="log",
                )
            ]
        )
        assert other.tool().written.known == 1
        assert path.exists()

    @pytest.mark.parametrize("text", ["", "{", '{"version": 99}', '{"files": {"x": 1}}', "[]"])
    def test_a_memory_that_makes_no_sense_is_none(self, desk, text):
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        desk.scan()
        for key in desk.ledger.states("import"):
            desk.ledger.state("import", key, text)
        assert desk.tool().written.known == 1

    @pytest.mark.parametrize(("lost", "known"), [(0, 0), (1, 1)])
    def test_half_a_memory_is_enough(self, desk, lost, known):
        """What the files were, and how far they were read, are kept one after the other: a scan may be killed between."""
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        desk.scan()
        keys = sorted(desk.ledger.states("import"), key=len)
        assert len(keys) == 2
        desk.append(f"{PROJECT}/s1.jsonl", claude("msg_2", 9, request="req_2"))
        desk.ledger.state("import", keys[lost], None)
        written = desk.tool().written
        assert (written.new, written.known) == (1, known)
        assert desk.tool().read == 0


class TestBetterSources:
    def client(self, **more):
        values = {
            "call_id": "mine",
            "provider": "anthropic",
            "model": "claude-opus-4-5",
            "source": "client",
            "provider_response_id": "msg_1",
        }
        return Entry(
            **values
            | {"started_at": datetime(2026, 11, 17, 7, 47, tzinfo=UTC), "usage": Usage(input=3, output=700)}
            | more
        )

    @pytest.mark.parametrize("client_first", [True, False])
    def test_a_call_that_a_client_saw_is_the_clients(self, desk, client_first):
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        if client_first:
            desk.ledger.append([self.client()])
            assert desk.tool().written.joined == 1
        else:
            desk.scan()
            desk.ledger.append([self.client()])
        assert [entry.call_id for entry in desk.entries()] == ["mine"]
        desk.append(f"{PROJECT}/s1.jsonl", claude(output=900), claude("msg_2"))
        written = desk.tool().written
        assert (written.new, written.corrected, written.joined) == (1, 0, 1)
        assert [entry.usage["output"] for entry in desk.entries()] == [700, 7]


class TestHostileFiles:
    def test_links_that_lead_out_are_named_and_not_followed(self, desk, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "s9.jsonl").write_text(json.dumps(claude("msg_9")) + "\n")
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        folder = desk.home / ".claude/projects"
        (folder / "away").symlink_to(outside)
        (folder / "s9.jsonl").symlink_to(outside / "s9.jsonl")
        (folder / "round").symlink_to(folder)
        (folder / "note.txt").symlink_to(outside / "s9.jsonl")
        found = desk.tool()
        assert found.calls == 1
        assert {Path(left.path).name for left in found.left} == {"away", "s9.jsonl"}
        assert all("leads out" in left.why for left in found.left)

    def test_a_linked_home_is_the_users_own_doing(self, desk, tmp_path):
        desk.write("real/projects/-x/s1.jsonl", claude())
        (desk.home / ".claude").symlink_to(desk.home / "real")
        assert desk.tool().calls == 1

    def test_pipes_and_folders_with_the_name_of_a_file(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude())
        os.mkfifo(desk.home / PROJECT / "pipe.jsonl")
        (desk.home / PROJECT / "folder.jsonl").mkdir()
        found = desk.tool()
        assert found.calls == 1
        assert [left.why for left in found.left] == ["not a regular file"]

    @pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
    def test_lines_across_the_edges_of_what_is_read_at_once(self, desk, monkeypatch, size):
        monkeypatch.setattr(files, "CHUNK", size)
        monkeypatch.setattr(files, "MAX_LINE", 2000)
        one = tokens(100, 20, 30, 5)
        long = claude("msg_9", message={"content": "x" * 3000})
        desk.write(f"{PROJECT}/s1.jsonl", claude(), "", long, long, claude("msg_2"), claude("msg_3"), end="")
        desk.write(".codex/sessions/r.jsonl", *codex_head(), codex(1, one, one))
        found = desk.scan().tools
        assert [tool.calls for tool in found] == [3, 1]
        assert [one.count for one in found[0].refused] == [2]
        desk.append(f"{PROJECT}/s1.jsonl", "", claude("msg_4"))
        assert desk.tool().written.new == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_what_may_not_be_read(self, desk):
        desk.write(f"{PROJECT}/s1.jsonl", claude()).chmod(0)
        assert "cannot be read" in desk.tool().left[0].why

    def test_lines_of_any_length(self, desk):
        text = "x" * (17 << 20)
        big = claude("msg_2", message={"content": text})
        desk.write(f"{PROJECT}/s1.jsonl", claude(), big, claude("msg_3"))
        desk.append(f"{PROJECT}/s1.jsonl", claude("msg_4"))
        found = desk.tool()
        assert found.calls == 3
        assert [(one.why, one.count) for one in found.refused] == [("lines longer than 16 MB", 1)]
        desk.append(f"{PROJECT}/s1.jsonl", text, end="")
        assert desk.tool().calls == 0
        desk.append(f"{PROJECT}/s1.jsonl", "", claude("msg_5"))
        assert desk.tool().written.new == 1

    @pytest.mark.parametrize(
        "line",
        [
            claude(usage={"output_tokens": 2**60}), claude(usage={"output_tokens": -1}), claude(usage={"output_tokens": 1e300}),
            claude(timestamp="1970-01-01T00:00:00Z"), claude(timestamp="9999-01-01T00:00:00Z"), claude(timestamp="yesterday"),
            claude(usage={"cache_creation": [1]}), "[" * 100_000 + '"output_tokens"',
        ],
        ids=range(8),
    )  # fmt: skip
    def test_what_makes_no_sense_is_counted_and_named(self, desk, line):
        path = desk.write(f"{PROJECT}/s1.jsonl", claude("msg_0"), line)
        found = desk.tool()
        assert found.calls == 1
        (refused,) = found.refused
        assert (refused.count, refused.file) == (1, str(path))

    def test_names_without_control_characters(self, desk):
        line = claude(sessionId="s\x1b[31m1", message={"model": "evil\x07\x1b]0;model" + "x" * 900}, requestId="\x00")
        desk.write(f"{PROJECT}/s1.jsonl", line)
        desk.scan()
        (entry,) = desk.entries()
        assert (entry.run_id, entry.step) == ("s[31m1", None)
        assert entry.model.isprintable()
        assert len(entry.model) <= 256

    def test_unknown_fields_and_other_shapes(self, desk):
        desk.write(
            f"{PROJECT}/s1.jsonl",
            claude(more={"a": [1, {"b": None}]}, usage={"new_tokens": 5, "iterations": []}),
            '"output_tokens"',
            "[]",
            "null",
        )
        assert desk.tool().calls == 1

    def test_bytes_that_are_no_text(self, desk):
        path = desk.write(f"{PROJECT}/s1.jsonl", claude())
        path.write_bytes(
            path.read_bytes()
            + b'\xff\xfe"output_tokens"\n'
            + bytes(range(256))
            + b"\n"
            + json.dumps(claude("msg_2")).encode()
            + b"\n"
        )
        assert desk.tool().calls == 2


def test_nothing_there_is_nothing(desk):
    desk.home.mkdir()
    found = desk.scan()
    assert (found.tools, found.unsupported, found.complete) == ((), (), True)


def test_tools_that_cannot_be_read_are_named(desk):
    for folder in (
        ".qwen/projects",
        ".factory/sessions",
        ".config/Code/User/globalStorage/saoudrizwan.claude-dev",
        ".local/share/amp/threads",
    ):
        (desk.home / folder).mkdir(parents=True)
    assert desk.scan().unsupported == ("Amp", "Cline", "Droid", "Qwen Code")
