"""Makes folders of coding-agent logs whose true usage is known, as messy as real ones.

    python benchmarks/logtrees.py FOLDER --seed 1 --megabytes 500

In them: responses split over several lines with placeholder counts, resumed sessions that copy old lines, sub-agents,
side chains that repeat a response under a new request id, synthetic and broken and half-written lines, messages without
id; for Codex repeated and falling counters, forks that copy their parent's history with new times or old ones, archived
copies; for Gemini CLI messages written again; for OpenCode a database, forks and old files.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

BEGIN = datetime(2026, 9, 1, 8, tzinfo=UTC)
CLAUDE_MODELS = ("claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
CODEX_MODELS = ("gpt-5.2", "gpt-5.2-codex", "gpt-5")
WORDS = (
    "the file has been read and it says that nothing is wrong here \\n    return value if value else None \\n"
    ' \\"usage\\": see the docs \\t def main(argv): path = Path(argv[1]) \\n // TODO check the bounds of this loop \\n'
)


@dataclass
class Truth:
    """The usage that the logs tell of, once: calls by tool, tokens by tool, day and kind."""

    calls: Counter[str] = field(default_factory=Counter)
    days: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, tool: str, at: datetime, **kinds: int) -> None:
        """Counts one call."""
        self.calls[tool] += 1
        self.days[tool, f"{at:%Y-%m-%d}"].update({kind: count for kind, count in kinds.items() if count})

    def total(self, tool: str) -> Counter[str]:
        """The tokens of a tool, by kind."""
        found: Counter[str] = Counter()
        for (name, _), kinds in self.days.items():
            if name == tool:
                found.update(kinds)
        return found


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Maker:
    """Makes one tree. `padding` is the average text of a line in bytes."""

    halves = True

    def __init__(self, seed: int, padding: int) -> None:
        self.rng = random.Random(seed)
        self.padding = padding
        self.filler = json.loads('"' + WORDS * 400 + '"')
        self.truth = Truth()
        self.clock = BEGIN

    def text(self) -> str:
        """Some text, on average as long as asked for."""
        if not self.padding:
            return "x"
        size = int(self.rng.expovariate(1 / self.padding)) + 1
        begin = self.rng.randrange(5000)
        return (self.filler * (1 + size // len(self.filler)))[begin : begin + size]

    def tick(self, least: float = 0.5, most: float = 40) -> datetime:
        """A little later."""
        self.clock += timedelta(milliseconds=int(1000 * self.rng.uniform(least, most)))
        return self.clock

    def hexes(self, count: int) -> str:
        """Random hexadecimal digits."""
        return f"{self.rng.getrandbits(4 * count):0{count}x}"

    def uuid(self) -> str:
        """A random id."""
        return f"{self.hexes(8)}-{self.hexes(4)}-4{self.hexes(3)}-a{self.hexes(3)}-{self.hexes(12)}"

    def uuid7(self, at: datetime) -> str:
        """An id that holds its time."""
        time = f"{int(at.timestamp() * 1000):012x}"
        return f"{time[:8]}-{time[8:]}-7{self.hexes(3)}-a{self.hexes(3)}-{self.hexes(12)}"

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share


class Claude(Maker):
    """Claude Code transcripts."""

    previous: tuple[str, list[bytes]] | None = None

    def usage(self) -> dict[str, object]:
        """The usage of one response."""
        rng = self.rng
        short, long = (rng.randrange(4000), 0) if self.chance(0.7) else (0, rng.randrange(9000))
        return {
            "input_tokens": rng.randrange(1, 12),
            "cache_creation_input_tokens": short + long,
            "cache_read_input_tokens": rng.randrange(5000, 150_000),
            "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
            "output_tokens": rng.randrange(20, 3000),
            "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
            "service_tier": "standard",
        }

    def line(self, kind: str, at: datetime, session: str, **more: object) -> dict[str, object]:
        """A line of a transcript."""
        line = {
            "parentUuid": self.uuid(), "isSidechain": False, "userType": "external", "cwd": self.cwd,
            "sessionId": session, "version": self.version, "gitBranch": "main", "type": kind, "uuid": self.uuid(),
            "timestamp": stamp(at),
        }  # fmt: skip
        return line | more

    def user(self, session: str, **more: object) -> bytes:
        """A line without usage."""
        content = [{"type": "tool_result", "tool_use_id": f"toolu_{self.hexes(12)}", "content": self.text()}]
        return dump(self.line("user", self.tick(), session, message={"role": "user", "content": content}, **more))

    def response(self, session: str, *, count: bool = True, identity: str | None = None, **more: object) -> list[bytes]:
        """The lines of one response; the fullest usage is in the last one, or in all of them."""
        usage = self.usage()
        model = self.model
        identity = identity or f"msg_01{self.hexes(20)}"
        request = f"req_011{self.hexes(20)}"
        blocks = self.rng.choice((1, 1, 2, 2, 3, 4))
        lines, first = [], None
        final = self.version.startswith("2.1.1")
        for number in range(blocks):
            at = self.tick(0.1, 3)
            first = first or at
            stated = dict(usage)
            if not final and number < blocks - 1:
                stated["output_tokens"] = self.rng.randrange(1, 9)
            message = {
                "model": model, "id": identity, "type": "message", "role": "assistant",
                "content": [{"type": "text", "text": self.text()}], "stop_reason": None, "stop_sequence": None,
                "usage": stated,
            }  # fmt: skip
            lines.append(dump(self.line("assistant", at, session, message=message, requestId=request, **more)))
        if count:
            self.count(first, usage)
        return lines

    def count(self, at: datetime | None, usage: dict[str, object]) -> None:
        """Enters a response into the truth."""
        assert at is not None
        self.truth.add(
            "claude-code", at, input=usage["input_tokens"], cache_read=usage["cache_read_input_tokens"],
            cache_write=usage["cache_creation_input_tokens"], output=usage["output_tokens"],
        )  # type: ignore[arg-type] # fmt: skip

    def oddities(self, session: str) -> list[bytes]:
        """Lines that are no calls, or calls without a message id."""
        lines = []
        if self.chance(0.15):
            nothing = {"input_tokens": 0, "output_tokens": 0, "service_tier": None, "server_tool_use": None}
            message = {"model": "<synthetic>", "id": self.uuid(), "usage": nothing, "content": [], "role": "assistant"}
            lines.append(dump(self.line("assistant", self.tick(), session, message=message)))
        if self.chance(0.05):
            lines.append(b'{"type":"assistant","message":{"usage":{"input_tokens":')
        if self.chance(0.1):
            usage, at = self.usage(), self.tick()
            for _ in range(2):
                message = {"model": self.model, "role": "assistant", "usage": usage, "content": []}
                lines.append(dump(self.line("assistant", at, session, message=message)))
                self.count(at, usage)
        if self.chance(0.2):
            lines.append(dump({"type": "summary", "summary": self.text(), "leafUuid": self.uuid()}))
        if self.chance(0.2):
            result = {"usage": self.usage(), "totalTokens": 5, "content": self.text()}
            lines.append(self.user(session, toolUseResult=result))
        return lines

    def session(self) -> Iterator[tuple[str, bytes]]:
        """The files of one session."""
        rng = self.rng
        self.clock += timedelta(minutes=rng.randrange(1, 30))
        self.model = rng.choice(CLAUDE_MODELS)
        self.version = rng.choice(("2.0.14", "2.1.30", "2.1.120", "2.1.140"))
        project = f"app{rng.randrange(12)}"
        self.cwd = f"/home/ada/work/{project}"
        folder = f"-home-ada-work-{project}"
        session = self.uuid()
        lines: list[bytes] = []
        if self.previous is not None and self.chance(0.2):
            folder, old = self.previous
            copied = old[: rng.randrange(1, len(old) + 1)]
            # Lines without a message id count wherever they stand, so copies of them would be calls.
            copied = [line for line in copied if line.endswith(b"}") and (b'"id":"' in line or b'"usage":' not in line)]
            lines = [dump(json.loads(line) | {"sessionId": session}) for line in copied]
        last: list[bytes] = []
        for _ in range(rng.randrange(4, 40)):
            lines.append(self.user(session))
            last = self.response(session)
            lines += last
            lines += self.oddities(session)
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            yield self.agent(folder, session)
        if self.chance(0.15):
            yield self.aside(folder, session, last)
        self.previous = folder, lines
        ending = b"\n"
        if self.halves and self.chance(0.1):
            ending += self.response(session, count=False)[0][: rng.randrange(40, 400)]
        yield f".claude/projects/{folder}/{session}.jsonl", b"\n".join(lines) + ending

    def agent(self, folder: str, session: str) -> tuple[str, bytes]:
        """A sub-agent's transcript."""
        agent = self.hexes(8)
        lines = []
        for _ in range(self.rng.randrange(2, 12)):
            lines.append(self.user(session, isSidechain=True, agentId=agent))
            lines += self.response(session, isSidechain=True, agentId=agent)
        name = f".claude/projects/{folder}/{session}/subagents/agent-{agent}.jsonl"
        return name, b"\n".join(lines) + b"\n"

    def aside(self, folder: str, session: str, last: list[bytes]) -> tuple[str, bytes]:
        """A side question: the main thread's last response again, under another request id."""
        agent = f"aside_{self.hexes(8)}"
        request = f"req_011{self.hexes(20)}"
        lines = [
            dump(json.loads(line) | {"isSidechain": True, "agentId": agent, "requestId": request}) for line in last
        ]
        lines += self.response(session, isSidechain=True, agentId=agent)
        return f".claude/projects/{folder}/{session}/subagents/agent-{agent}.jsonl", b"\n".join(lines) + b"\n"


class Codex(Maker):
    """Codex rollouts."""

    previous: tuple[str, list[dict[str, object]]] | None = None

    def item(self, kind: str, at: datetime, **payload: object) -> dict[str, object]:
        """A line of a rollout."""
        return {"timestamp": stamp(at), "type": kind, "payload": payload}

    def counted(self, at: datetime, totals: dict[str, int], last: dict[str, int]) -> dict[str, object]:
        """A token_count."""
        info = {"total_token_usage": dict(totals), "last_token_usage": dict(last), "model_context_window": 272_000}
        return self.item("event_msg", at, type="token_count", info=info, rate_limits={"primary": {"used_percent": 3.0}})

    def turn(self, lines: list[dict[str, object]], totals: dict[str, int]) -> None:
        """One turn: a few responses with their counts."""
        rng = self.rng
        begun = self.tick()
        turn = self.uuid7(begun)
        lines.append(
            self.item("event_msg", begun, type="task_started", turn_id=turn, started_at=int(begun.timestamp()))
        )
        lines.append(
            self.item("turn_context", begun, turn_id=turn, cwd="/home/ada/work/app", model=self.model, effort="high")
        )
        lines.append(self.item("event_msg", self.tick(), type="user_message", message=self.text()))
        for _ in range(rng.randrange(1, 8)):
            text = [{"type": "output_text", "text": self.text()}]
            lines.append(self.item("response_item", self.tick(), type="message", role="assistant", content=text))
            lines.append(self.item("response_item", self.tick(), type="function_call_output", output=self.text()))
            prompt = rng.randrange(8000, 200_000)
            output = rng.randrange(30, 4000)
            last = {
                "input_tokens": prompt, "cached_input_tokens": rng.randrange(prompt), "output_tokens": output,
                "reasoning_output_tokens": rng.randrange(output), "total_tokens": prompt + output,
            }  # fmt: skip
            if self.chance(0.03):
                totals.clear()
            for name, count in last.items():
                totals[name] = totals.get(name, 0) + count
            at = self.tick()
            lines.append(self.counted(at, totals, last))
            self.truth.add(
                "codex", at, input=prompt - last["cached_input_tokens"], cache_read=last["cached_input_tokens"],
                output=output, reasoning=last["reasoning_output_tokens"],
            )  # fmt: skip
            if self.chance(0.3):
                lines.append(self.counted(self.tick(), totals, last))
            if self.chance(0.1):
                lines.append(self.item("event_msg", self.tick(), type="token_count", info=None, rate_limits={}))

    def session(self) -> Iterator[tuple[str, bytes]]:
        """The files of one session."""
        rng = self.rng
        self.clock += timedelta(minutes=rng.randrange(1, 30))
        self.model = rng.choice(CODEX_MODELS)
        begun = self.tick()
        session = self.uuid7(begun)
        meta: dict[str, object] = {
            "id": session, "timestamp": stamp(begun), "cwd": "/home/ada/work/app", "originator": "codex_cli",
            "cli_version": "0.148.0", "model_provider": "openai", "instructions": self.text(),
        }  # fmt: skip
        lines: list[dict[str, object]] = []
        totals: dict[str, int] = {}
        how = rng.choice(("new", "new", "new", "fork", "agent", "fresh agent")) if self.previous else "new"
        if self.previous and how != "new":
            parent, history = self.previous
            if how == "fork":
                meta["forked_from_id"] = parent
                copies = [
                    old | {"timestamp": stamp(begun + timedelta(milliseconds=n // 4))} for n, old in enumerate(history)
                ]
            else:
                meta["source"] = {"subagent": {"thread_spawn": {"parent_thread_id": parent, "depth": 1}}}
                copies = list(history) if how == "agent" else []
            lines += copies
            for old in copies:
                info = old["payload"].get("info")  # type: ignore[attr-defined]
                totals = dict(info["total_token_usage"]) if info else totals
            self.clock += timedelta(seconds=3)
        lines.insert(0, self.item("session_meta", begun, **meta))
        for _ in range(rng.randrange(1, 8)):
            self.turn(lines, totals)
        self.previous = session, lines
        name = f"rollout-{begun:%Y-%m-%dT%H-%M-%S}-{session}.jsonl"
        data = b"\n".join(dump(line) for line in lines) + b"\n"
        if self.halves and self.chance(0.1):
            data += dump(lines[-1])[: rng.randrange(20, 200)]
        yield f".codex/sessions/{begun:%Y/%m/%d}/{name}", data
        if self.chance(0.05):
            yield f".codex/archived_sessions/{name}", data


class Others(Maker):
    """A few chats of Gemini CLI and messages of OpenCode."""

    def gemini(self) -> Iterator[tuple[str, bytes]]:
        """Chats, as documents and as lines."""
        for number in range(4):
            session, messages = self.uuid(), []
            for _ in range(self.rng.randrange(2, 9)):
                at = self.tick()
                prompt, output, thoughts = (self.rng.randrange(1, 9000) for _ in range(3))
                cached = self.rng.randrange(prompt)
                tokens = {
                    "input": prompt, "output": output, "cached": cached, "thoughts": thoughts, "tool": 0,
                    "total": prompt + output + thoughts,
                }  # fmt: skip
                self.truth.add(
                    "gemini-cli",
                    at,
                    input=prompt - cached,
                    cache_read=cached,
                    output=output + thoughts,
                    reasoning=thoughts,
                )
                message = {
                    "id": self.uuid(),
                    "timestamp": stamp(at),
                    "type": "gemini",
                    "content": self.text(),
                    "model": "gemini-2.5-pro",
                }
                messages.append({"id": self.uuid(), "timestamp": stamp(at), "type": "user", "content": self.text()})
                if number % 2:
                    messages.append(message | {"tokens": tokens | {"output": 0, "total": prompt + thoughts}})
                messages.append(message | {"tokens": tokens})
            head = {
                "sessionId": session,
                "projectHash": "abc",
                "startTime": stamp(self.clock),
                "lastUpdated": stamp(self.clock),
            }
            if number % 2:
                lines = [dump(head), *map(dump, messages), dump({"$set": {"lastUpdated": stamp(self.clock)}})]
                yield f".gemini/tmp/app/chats/session-{number}.jsonl", b"\n".join(lines) + b"\n"
            else:
                yield f".gemini/tmp/app/chats/session-{number}.json", dump(head | {"messages": messages})

    def opencode(self, root: Path) -> None:
        """A database with forks, and files of older versions."""
        folder = root / ".local/share/opencode"
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / "opencode.db")
        connection.execute("CREATE TABLE session (id TEXT PRIMARY KEY, directory TEXT NOT NULL, title TEXT)")
        connection.execute("CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, data TEXT NOT NULL)")
        connection.execute(
            "INSERT INTO session VALUES ('ses_1', '/home/ada/work/app', 'x'), ('ses_2', '/home/ada/work/app', 'fork')"
        )
        for number in range(12):
            at = self.tick()
            reasoning, output, prompt = (
                self.rng.randrange(50),
                self.rng.randrange(100, 900),
                self.rng.randrange(100, 9000),
            )
            read, written = self.rng.randrange(9000), self.rng.randrange(900)
            created = int(at.timestamp() * 1000)
            message = {
                "role": "assistant", "modelID": "claude-sonnet-4-5-20250929", "providerID": "anthropic", "cost": 0.01,
                "time": {"created": created, "completed": created + 900}, "path": {"cwd": "/", "root": "/home/ada/work/app"},
                "tokens": {
                    "total": prompt + output + reasoning + read + written, "input": prompt, "output": output,
                    "reasoning": reasoning, "cache": {"read": read, "write": written},
                },
            }  # fmt: skip
            self.truth.add(
                "opencode",
                at,
                input=prompt,
                cache_read=read,
                cache_write=written,
                output=output + reasoning,
                reasoning=reasoning,
            )
            connection.execute("INSERT INTO message VALUES (?, 'ses_1', ?)", (f"msg_{number}", json.dumps(message)))
            if number < 5:
                connection.execute(
                    "INSERT INTO message VALUES (?, 'ses_2', ?)", (f"msg_fork{number}", json.dumps(message))
                )
            if number < 3:
                old = folder / f"storage/message/ses_1/msg_{number}.json"
                old.parent.mkdir(parents=True, exist_ok=True)
                old.write_bytes(dump(message | {"id": f"msg_{number}", "sessionID": "ses_1"}))
        user = json.dumps({"role": "user", "time": {"created": 1}})
        busy = json.dumps(
            {"role": "assistant", "modelID": "m", "time": {"created": 5}, "tokens": {"input": 9, "output": 9}}
        )
        connection.execute(
            "INSERT INTO message VALUES ('msg_user', 'ses_1', ?), ('msg_busy', 'ses_1', ?)", (user, busy)
        )
        connection.commit()
        connection.close()


def make_tree(
    root: Path, seed: int, megabytes: float = 1, *, padding: int = 2100, codex: float = 0.25, halves: bool = True
) -> Truth:
    """Writes a tree of about so many megabytes below a home folder. `codex` is the share of Codex in it; `halves` says
    whether some files end in half a line."""
    makers = (Claude(seed, padding), Codex(seed + 1, padding), others := Others(seed + 2, min(padding, 200)))
    truth = Truth()
    for maker in makers:
        maker.truth, maker.halves = truth, halves
    for maker, share in ((makers[0], 1 - codex), (makers[1], codex)):
        size = 0.0
        while size < megabytes * share * 1e6:
            for name, data in maker.session():
                size += put(root, name, data)
    for name, data in others.gemini():
        put(root, name, data)
    others.opencode(root)
    return truth


def put(root: Path, name: str, data: bytes) -> int:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--whole", action="store_true", help="no half-written lines")
    options = parser.parse_args()
    truth = make_tree(options.folder, options.seed, options.megabytes, halves=not options.whole)
    for tool in sorted(truth.calls):
        print(tool, truth.calls[tool], dict(truth.total(tool)))


if __name__ == "__main__":
    main()
