"""Lines of coding agents' logs, read one by one and as golden cases."""

import json
from datetime import UTC, datetime
from itertools import permutations

import msgspec
import pytest

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.logs import claude_code, codex, gemini_cli, opencode
from tallystick.wire.logs.lines import ABSURD, BROKEN, LogCall, biller, fuller, joined, lenient, merged
from tallystick.wire.usage import read_response, read_usage

AT = datetime(2026, 11, 17, 7, 47, 58, tzinfo=UTC)


def dump(value):
    return json.dumps(value).encode()


def call(size, *, aside=False, session="s", at=AT, key="k"):
    return LogCall(key=key, at=at, model="m", usage=None, size=size, aside=aside, session=session)


def test_the_fuller_of_two_sightings_does_not_depend_on_their_order():
    later = AT.replace(hour=9)
    sightings = [
        call(5),
        call(5, aside=True),
        call(9, aside=True, at=later),
        call(9, at=later),
        call(9, at=later, session="a"),
    ]
    results = set()
    for order in permutations(sightings):
        found = order[0]
        for other in order[1:]:
            found = merged(other, found)
        results.add((found.size, found.aside, found.session, found.at))
    assert results == {(9, False, "a", AT)}
    assert fuller(call(2), call(1))
    assert not fuller(call(1), call(2))
    assert not fuller(call(1), call(1))


def test_nulls_and_whole_floats_are_taken_and_the_rest_refused():
    class Wanted(msgspec.Struct):
        count: int = 0
        more: list[int] = []

    assert lenient(b'{"count": 3.0, "more": [1, 2.0], "x": null}', Wanted) == Wanted(3, [1, 2])
    assert lenient(b'{"count": null, "more": []}', Wanted) == Wanted()
    for text, why in (
        (b"{", BROKEN),
        (b"\xff", BROKEN),
        (b"[" * 100_000, ABSURD),
        (b'{"count": 0.5}', ABSURD),
        (b'{"count": 1e300}', ABSURD),
    ):
        with pytest.raises(UsageError) as caught:
            lenient(text, Wanted)
        assert caught.value.what == why
    deep = b'{"count": 1, "x": ' + b'{"y":' * 30 + b"[[1]]" + b"}" * 30 + b"}"
    assert lenient(deep, Wanted) == Wanted(1)
    listed = b'{"count": 1, "x": ' + b"[" * 30 + b"]" * 30 + b"}"
    assert lenient(listed, Wanted) == Wanted(1)


def test_who_bills():
    assert biller("OpenAI") == "openai"
    assert biller("my-proxy") == "other:my-proxy"
    assert biller("") is None
    assert biller(3) is None


def test_no_lines_are_no_usage():
    with pytest.raises(UsageError, match="None of the lines"):
        joined([])
    with pytest.raises(UsageError, match="None of the lines"):
        read_usage("log.codex", [])
    assert read_response("log.codex", b"[]").usage is None
    assert read_response("log.claude_code", b'[{"type":"user"}]').usage is None


USAGE = {"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 11}


class TestClaudeCode:
    def line(self, message=None, **more):
        message = {"id": "msg_1", "model": "m", "usage": USAGE} | (message or {})
        return {
            "timestamp": "2026-11-17T07:47:58Z",
            "sessionId": "s",
            "requestId": "r",
            "version": "2.1.97",
            "message": message,
        } | more

    def read(self, line):
        return claude_code.read_line(dump(line), "file 0")

    def test_a_line_is_a_call(self):
        found = self.read(self.line(isSidechain=True, agentId="a", cwd="/x"))
        assert found == LogCall(
            key="msg_1 r", at=AT, model="m", usage=found.usage, size=26, aside=True, project="/x", session="s", agent="a",
            parent="s", step="r", response_id="msg_1", quality="exact",
        )  # fmt: skip
        reading = claude_code.reading_of(found)
        assert reading.usage == Usage(input=3, cache_read=5, cache_write=11, output=7)
        assert (reading.model, reading.response_id) == ("m", "msg_1")

    def test_lines_that_are_no_calls(self):
        for line in (
            {"type": "summary"},
            self.line(timestamp=None),
            self.line({"model": "<synthetic>"}),
            self.line({"usage": None}),
        ):
            assert self.read(line) is None
        with pytest.raises(UsageError, match=BROKEN):
            claude_code.read_line(b'{"message":', "x")
        with pytest.raises(UsageError, match="make no sense"):
            self.read(self.line({"usage": USAGE | {"output_tokens": -1}}))

    def test_nulls_within_the_usage(self):
        found = self.read(
            self.line({"usage": USAGE | {"server_tool_use": {"web_search_requests": None}, "input_tokens": 3.0}})
        )
        assert found.size == 26

    def test_without_ids_the_place_is_the_key(self):
        found = self.read(self.line({"id": None, "model": None}, uuid="u", requestId=None))
        assert (found.key, found.model, found.response_id, found.parent) == ("line u file 0", "unknown", None, None)
        assert self.read(self.line(requestId=None)).key == "msg_1 "

    @pytest.mark.parametrize(
        ("version", "quality"),
        [
            ("2.1.96", "lower_bound"),
            ("2.1.97", "exact"),
            ("2.1.120", "exact"),
            ("3.0.0-beta", "exact"),
            ("1.0.128", "lower_bound"),
            (None, "lower_bound"),
            ("dev", "lower_bound"),
        ],
    )
    def test_old_versions_wrote_placeholders(self, version, quality):
        assert self.read(self.line(version=version)).quality == quality

    @pytest.mark.parametrize(
        ("usage", "size"),
        [
            ({"input_tokens": 1, "output_tokens": 2}, 3),
            (
                {
                    "input_tokens": 1,
                    "output_tokens": 2,
                    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 8},
                },
                15,
            ),
        ],
    )
    def test_size(self, usage, size):
        assert self.read(self.line({"usage": usage})).size == size

    def test_projects_are_named_by_the_caller(self):
        found = claude_code.read_line(dump(self.line(cwd="/home/ada/app")), "x", {"/home/ada/app": "app"})
        assert found.project == "app"

    def test_several_calls_are_added_up(self):
        lines = [
            self.line(),
            self.line({"usage": USAGE | {"output_tokens": 70}}),
            self.line({"id": "msg_2"}),
            {"type": "x"},
        ]
        reading = read_usage("log.claude_code", lines)
        assert reading.usage == Usage(input=6, cache_read=10, cache_write=22, output=77)
        assert read_response("log.claude_code", dump(lines)).usage == reading.usage


class TestCodex:
    SESSION = "019a0000-0000-7000-a000-000000000000"
    OLD_TURN = "0199ffff-0000-7000-a000-000000000001"
    OWN_TURN = "019a0000-0001-7000-a000-000000000002"

    def numbers(self, prompt=100, cached=20, output=30, reasoning=5, written=0):
        return {
            "input_tokens": prompt, "cached_input_tokens": cached, "output_tokens": output,
            "reasoning_output_tokens": reasoning, "cache_write_input_tokens": written, "total_tokens": prompt + output,
        }  # fmt: skip

    def line(self, kind, payload, second=0):
        return {"timestamp": f"2026-01-01T00:00:{second:02d}Z", "type": kind, "payload": payload}

    def meta(self, second=0, **more):
        return self.line(
            "session_meta", {"id": self.SESSION, "cwd": "/home/ada/app", "model_provider": "openai"} | more, second
        )

    def turn(self, second=1, turn=OWN_TURN, model="gpt-x", **more):
        return self.line("turn_context", {"turn_id": turn, "model": model} | more, second)

    def count(self, second, total, last=None, **more):
        return self.line(
            "event_msg",
            {"type": "token_count", "info": {"total_token_usage": total, "last_token_usage": last} | more},
            second,
        )

    def calls(self, *lines):
        rollout = codex.Rollout()
        found = [rollout.read_line(dump(line)) for line in lines]
        return [call for call in found if call is not None]

    def test_a_session(self):
        one = self.numbers()
        (found,) = self.calls(self.meta(), self.turn(), self.count(2, one, one), self.count(3, one, one))
        assert (found.model, found.session, found.project, found.provider) == (
            "gpt-x",
            self.SESSION,
            "/home/ada/app",
            "openai",
        )
        assert (found.step, found.parent, found.aside, found.size) == (self.OWN_TURN, None, False, 130)
        assert codex.reading_of(found).usage == Usage(input=80, cache_read=20, output=25, reasoning=5)

    def test_cached_and_written_tokens_are_inside_input(self):
        one = self.numbers(written=10) | {"cached_input_tokens": 0, "cache_read_input_tokens": 20}
        (found,) = self.calls(self.turn(), self.count(2, one, one))
        assert codex.reading_of(found).usage == Usage(input=70, cache_read=20, cache_write=10, output=25, reasoning=5)
        fault = codex.reading_of(msgspec.structs.replace(found, usage=(1, 2, 0, 1, 0)))
        assert fault.usage is None
        assert "more than" in fault.fault

    def test_totals_alone_give_differences_and_a_fallen_total_begins_anew(self):
        small, more = self.numbers(), self.numbers(150, 30, 40, 6)
        found = self.calls(
            self.turn(), self.count(2, small), self.count(3, more), self.count(4, small), self.count(5, None)
        )
        assert [call.usage for call in found] == [(100, 20, 0, 30, 5), (50, 10, 0, 10, 1)]
        found = self.calls(self.count(2, more), self.count(3, small))
        assert [call.usage for call in found] == [(150, 30, 0, 40, 6), (100, 20, 0, 30, 5)]

    def test_a_reset_and_a_stale_total(self):
        one, two = self.numbers(), self.numbers(500, 20, 60, 9)
        last = self.numbers(400, 0, 30, 4)
        found = self.calls(
            self.count(2, one, one), self.count(3, two, last), self.count(4, one, one), self.count(5, one, last)
        )
        assert [call.usage[0] for call in found] == [100, 400]
        found = self.calls(self.count(2, two, last), self.count(3, one, one))
        assert [call.usage[0] for call in found] == [400, 100]

    def test_only_the_last_usage(self):
        one = self.numbers()
        found = self.calls(
            self.count(2, None, one), self.count(3, None, one), self.count(4, None, self.numbers(0, 0, 0, 0))
        )
        assert [call.usage[0] for call in found] == [100, 100]

    def test_lines_without_counts(self):
        one = self.numbers()
        lines = [
            {"type": "event_msg"}, self.line("event_msg", {"type": 5}), self.line("event_msg", {"type": "token_count", "info": None}),
            self.count(1, one, one) | {"timestamp": None}, self.line("event_msg", {"type": "thread_settings_applied", "thread_settings": 1}),
            self.line("event_msg", {"type": "user_message"}),
        ]  # fmt: skip
        assert self.calls(*lines) == []
        with pytest.raises(UsageError, match=BROKEN):
            codex.Rollout().read_line(b"{")
        with pytest.raises(UsageError, match="make no sense"):
            self.calls(self.count(1, one | {"input_tokens": 2**60}, one))

    def test_the_tier_of_a_thread(self):
        one = self.numbers()
        settings = self.line(
            "event_msg", {"type": "thread_settings_applied", "thread_settings": {"service_tier": "flex"}}
        )
        (found,) = self.calls(settings, self.count(1, one, one, model="other"))
        assert (found.tier, found.model) == ("flex", "other")
        assert codex.reading_of(found).context == {"service_tier": "flex"}

    def test_a_fork_copies_with_new_times(self):
        one, two, three = self.numbers(), self.numbers(200, 40, 60, 10), self.numbers(300, 60, 90, 15)
        found = self.calls(
            self.meta(forked_from_id="parent"), self.meta(id="parent"), self.turn(0, self.OLD_TURN), self.count(0, one, one),
            self.count(1, two, one), self.turn(9), self.count(9, two, one), self.count(12, three, one),
        )  # fmt: skip
        assert [(call.usage[0], call.at.second, call.parent) for call in found] == [(100, 12, "parent")]
        assert found[0].session == self.SESSION

    def test_a_sub_agent_copies_with_old_times(self):
        one, two = self.numbers(), self.numbers(200, 40, 60, 10)
        spawned = {"subagent": {"thread_spawn": {"parent_thread_id": "parent"}}}
        lines = [
            self.meta(30, source=spawned),
            self.turn(1, None),
            self.count(2, one, one),
            self.turn(31, None),
            self.count(50, two, one),
        ]
        assert [call.at.second for call in self.calls(*lines)] == [50]

    def test_a_sub_agent_that_begins_at_nothing(self):
        one = self.numbers()
        found = self.calls(self.meta(parent_thread_id="parent"), self.turn(), self.count(1, one, one))
        assert [call.usage[0] for call in found] == [100]
        found = self.calls(
            self.meta(parent_thread_id="parent"),
            self.count(1, one, one),
            self.count(1, None, one),
            self.count(9, None, one),
        )
        assert [call.at.second for call in found] == [9]

    def test_what_a_session_inherited_is_not_its_own(self):
        one, two, three = self.numbers(), self.numbers(200, 40, 60, 10), self.numbers(260, 40, 70, 10)
        head = [self.meta(forked_from_id="parent"), self.count(0, one, one), self.count(0, two, one)]
        found = self.calls(
            *head, self.turn(), self.count(5, self.numbers(150, 40, 60, 10), one), self.count(6, three, one)
        )
        assert [call.at.second for call in found] == [6]
        found = self.calls(*head, self.turn(), self.count(5, self.numbers(50, 0, 5, 0), self.numbers(50, 0, 5, 0)))
        assert [call.usage[0] for call in found] == [50]

    def test_turns_tell_by_their_start_where_ids_do_not(self):
        one, two = self.numbers(), self.numbers(200, 40, 60, 10)
        begun = int(datetime(2026, 1, 1, 0, 0, 20, tzinfo=UTC).timestamp())

        def started(second, at):
            return self.line("event_msg", {"type": "task_started", "turn_id": "x", "started_at": at}, second)

        head = [self.meta(20, forked_from_id="p"), started(20, begun - 900), self.count(40, one, one)]
        found = self.calls(*head, started(41, begun + 21.5), self.count(50, two, one))
        assert [call.at.second for call in found] == [50]
        assert self.calls(*head, started(41, True), self.count(50, two, one)) == []

    def test_identities_that_hold_no_time(self):
        for identity in (None, "x", "zzzzzzzz-zzzz-7000-a000-000000000000", "019a0000-0000-4000-a000-000000000000"):
            assert codex._milliseconds(identity) is None
        assert codex._milliseconds(self.SESSION) == 0x019A00000000

    def test_reading_goes_on_where_it_stopped(self):
        one, two = self.numbers(), self.numbers(200, 40, 60, 10)
        lines = [
            self.meta(forked_from_id="p"),
            self.turn(0, self.OLD_TURN),
            self.count(0, one, one),
            self.turn(),
            self.count(5, two, one),
        ]
        whole = self.calls(*lines)
        for cut in range(len(lines)):
            first = codex.Rollout()
            found = [first.read_line(dump(line)) for line in lines[:cut]]
            kept = msgspec.json.decode(msgspec.json.encode(first.progress), type=codex.Progress)
            second = codex.Rollout(kept)
            found += [second.read_line(dump(line)) for line in lines[cut:]]
            assert [call for call in found if call is not None] == whole

    def test_what_matters_is_told_from_the_head(self):
        assert codex.matters(dump(self.meta()))
        assert codex.matters(b'{"timestamp":"x","payload":{}}')
        assert not codex.matters(b"")
        assert not codex.matters(dump(self.line("response_item", {"type": "message", "content": "token_count"})))
        assert not codex.matters(dump(self.line("event_msg", {"type": "agent_message"})))

    def test_lines_that_matter_are_found_in_a_block(self):
        told = dump(self.line("response_item", {"type": "message", "content": "x" * 300 + "token_count"}))
        count, meta = dump(self.count(1, self.numbers())), dump(self.meta())
        long = dump(self.line("event_msg", {"type": "user_message", "message": "y" * 300 + '"response_item"'}))
        data = b"\n".join((b"cut", told, count, b"", long, meta, told, b"left"))
        begin, end = data.index(b"\n") + 1, data.rindex(b"\n") + 1
        assert list(codex.lines_that_matter(data, begin, end)) == [count, meta]
        assert list(codex.lines_that_matter(data, begin, begin)) == []

    def test_the_latest_counts_are_remembered_and_no_more(self):
        one = self.numbers()
        lines = [self.count(2, self.numbers(100 + n), one) for n in range(40)]
        rollout = codex.Rollout()
        found = [rollout.read_line(dump(line)) for line in (*lines, lines[39], lines[20], lines[21], lines[20])]
        assert [call is not None for call in found] == [True] * 40 + [False] * 4
        seen = rollout.progress.seen
        assert len(seen) == 32
        assert [total[0] for total, _ in seen[-3:]] == [139, 121, 120]
        assert rollout.read_line(dump(lines[0])) is not None

    def test_sessions_and_projects_may_be_named_by_the_caller(self):
        one = self.numbers()
        rollout = codex.Rollout(None, "file", lambda cwd: f"project of {cwd}")
        found = rollout.read_line(dump(self.count(1, one, one)))
        assert (found.session, found.project) == ("file", "project of None")
        rollout.read_line(dump(self.meta()))
        found = rollout.read_line(dump(self.count(2, self.numbers(900), one)))
        assert (found.session, found.project) == (self.SESSION, "project of /home/ada/app")

    def test_a_body_of_lines(self):
        one = self.numbers()
        lines = [self.turn(), self.count(2, one, one)]
        assert read_response("log.codex", dump(lines)).usage == read_usage("log.codex", lines).usage


class TestGeminiCli:
    def message(self, **more):
        tokens = {"input": 100, "output": 7, "cached": 40, "thoughts": 9, "tool": 3, "total": 119}
        return {
            "id": "m1",
            "type": "gemini",
            "timestamp": "2026-11-17T07:47:58Z",
            "model": "g",
            "tokens": tokens,
        } | more

    def call(self, message):
        return gemini_cli.call_of(gemini_cli.read_message(dump(message)), "s", "app")

    def test_cached_inside_thoughts_added(self):
        found = self.call(self.message())
        assert (found.key, found.session, found.project, found.size) == ("m1", "s", "app", 119)
        reading = gemini_cli.reading_of(found)
        assert reading.usage == Usage(input=63, cache_read=40, output=7, reasoning=9)
        assert reading.fault is None

    def test_cached_outside_where_the_total_says_so(self):
        tokens = {"input": 60, "output": 7, "cached": 40, "thoughts": None, "total": 107}
        assert gemini_cli.reading_of(self.call(self.message(tokens=tokens))).usage == Usage(
            input=60, cache_read=40, output=7
        )

    def test_messages_that_are_no_calls(self):
        for more in ({"type": "user"}, {"tokens": None}, {"timestamp": None}, {"tokens": {}}):
            assert self.call(self.message(**more)) is None
        found = self.call(self.message(id=None, model=None))
        assert (found.key, found.model) == ("s 2026-11-17T07:47:58+00:00", "unknown")

    def test_a_chat_as_one_document(self):
        session, messages = gemini_cli.read_chat(
            dump({"sessionId": "s", "messages": [self.message(), {"type": "user"}]})
        )
        assert session == "s"
        assert [gemini_cli.read_message(one).type for one in messages] == ["gemini", "user"]
        assert gemini_cli.read_chat(b'{"sessionId": null}') == (None, [])
        for document in (b"{", b'{"messages": 3}', b"[]"):
            with pytest.raises(UsageError):
                gemini_cli.read_chat(document)


class TestOpenCode:
    def message(self, **more):
        tokens = {"input": 10, "output": 20, "reasoning": 5, "cache": {"read": 3, "write": 2}, "total": 40}
        times = {"created": 1_790_000_000_000, "completed": 1_790_000_001_000}
        return {
            "role": "assistant",
            "modelID": "m",
            "providerID": "anthropic",
            "tokens": tokens,
            "time": times,
            "sessionID": "s",
        } | more

    def call(self, **more):
        return opencode.read_message(dump(self.message(**more)))

    def tokens(self, **more):
        return {"input": 10, "output": 20, "reasoning": 5, "cache": {"read": 3, "write": 2}} | more

    def test_reasoning_beside_or_inside_output(self):
        assert opencode.reading_of(self.call()).usage == Usage(
            input=10, cache_read=3, cache_write=2, output=20, reasoning=5
        )
        inside = self.call(tokens=self.tokens(total=35))
        assert opencode.reading_of(inside).usage == Usage(input=10, cache_read=3, cache_write=2, output=15, reasoning=5)
        assert inside.quality == "exact"
        unsaid = self.call(tokens=self.tokens())
        assert unsaid.quality == "estimated"
        assert opencode.reading_of(unsaid).usage["output"] == 15
        more = self.call(tokens=self.tokens(reasoning=30))
        assert opencode.reading_of(more).usage["reasoning"] == 30

    def test_what_it_was_for(self):
        found = self.call(path={"root": "/home/ada/app"})
        assert (found.session, found.project, found.provider, found.at.year) == (
            "s",
            "/home/ada/app",
            "anthropic",
            2026,
        )
        newer = self.call(modelID=None, providerID=None, model={"id": "n", "providerID": "openai"}, role=None)
        assert (newer.model, newer.provider, newer.project) == ("n", "openai", None)
        named = opencode.read_message(dump(self.message(modelID=None)), "t", "there")
        assert (named.model, named.session, named.project) == ("unknown", "t", "there")

    def test_messages_that_are_no_calls(self):
        for more in (
            {"role": "user"},
            {"tokens": None},
            {"time": None},
            {"time": {"completed": 1}},
            {"time": {"created": 1}},
            {"tokens": {}},
        ):
            assert self.call(**more) is None
        for created in (-1, 2**50):
            with pytest.raises(UsageError, match="make no sense"):
                self.call(time={"created": created, "completed": 1})
        with pytest.raises(UsageError, match=BROKEN):
            opencode.read_message(b"{")
