"""A home folder with logs, a ledger, and scans of the one into the other."""

import json
from datetime import UTC, datetime

from tallystick.capture.logs.scan import scan
from tallystick.catalog.catalog import Catalog
from tallystick.core.attribution import Tags
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Desk:
    """A home folder, a ledger, and what scanning gave."""

    def __init__(self, home, ledger=None):
        self.home = home
        self.ledger = MemoryLedger() if ledger is None else ledger

    def write(self, name, *lines, end="\n", mode="w"):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(
                "\n".join(line if isinstance(line, str) else json.dumps(line, separators=(",", ":")) for line in lines)
                + end
            )
        return path

    def append(self, name, *lines, end="\n"):
        return self.write(name, *lines, end=end, mode="a")

    def scan(self, env=None, **more):
        return scan(self.ledger, Catalog.bundled, NOW, env=env or {}, home=self.home, **more)

    def tool(self, name="claude-code", **more):
        return next(tool for tool in self.scan(**more).tools if tool.tool == name)

    def entries(self, **query):
        return list(self.ledger.read(Query(**query)))

    def total(self, tool):
        return self.ledger.total(Query(tags=Tags(tool=tool)))[0]


PROJECT = ".claude/projects/-home-ada-work-app"


def claude(identity="msg_1", output=7, *, request="req_1", second=0, **more):
    """A line of Claude Code."""
    usage = {
        "input_tokens": 3,
        "output_tokens": output,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 11,
    }
    message = {
        "id": identity,
        "role": "assistant",
        "model": "claude-opus-4-5-20251101",
        "usage": usage | more.pop("usage", {}),
    }
    line = {
        "type": "assistant", "timestamp": f"2026-11-17T07:47:{second:02d}.000Z", "sessionId": "s1", "version": "2.1.120",
        "cwd": "/home/ada/work/app", "message": message | more.pop("message", {}), "requestId": request,
    }  # fmt: skip
    return {key: value for key, value in (line | more).items() if value != "absent"}


def tokens(prompt, cached, output, reasoning):
    """Counts as Codex writes them."""
    return {
        "input_tokens": prompt, "cached_input_tokens": cached, "output_tokens": output,
        "reasoning_output_tokens": reasoning, "total_tokens": prompt + output,
    }  # fmt: skip


def codex(second, total, last):
    """A token_count of Codex."""
    info = {"total_token_usage": total, "last_token_usage": last}
    return {
        "timestamp": f"2026-11-17T07:00:{second:02d}.000Z",
        "type": "event_msg",
        "payload": {"type": "token_count", "info": info},
    }


def codex_head(model="gpt-5.2", session="c1"):
    """The first lines of a rollout."""
    meta = {"id": session, "cwd": "/home/ada/work/app", "model_provider": "openai"}
    return [
        {"timestamp": "2026-11-17T07:00:00.000Z", "type": "session_meta", "payload": meta},
        {"timestamp": "2026-11-17T07:00:00.000Z", "type": "turn_context", "payload": {"model": model, "turn_id": "t1"}},
    ]
