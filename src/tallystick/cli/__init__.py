"""The command line. One file per verb; a verb is imported when it is called."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

MAIN = {
    "scan": "What your coding agents have used, from their own logs.",
    "report": "What was spent, by model, run or tag.",
    "live": "What is being spent now.",
    "up": "The gateway: one base URL for every client; each call is metered.",
    "budget": "Limits on what may be spent: add, list, show, raise, pause, remove.",
    "price": "What a call costs, line by line.",
    "compare": "One text across models, or two prompts on one model.",
    "rates": "The rate catalogue: show, set, check, diff, update.",
}
MORE = {
    "demo": "An agent run, metered while you watch; no key, nothing billed.",
    "daily": "What each day cost.",
    "monthly": "What each month cost.",
    "blocks": "What each five-hour block of a subscription cost.",
    "top": "The most expensive models, runs and tags.",
    "chart": "A report as a picture.",
    "statusline": "One line for a prompt or a status bar.",
    "count": "How many tokens a text has.",
    "explain": "The whole pipeline on one text, stage by stage.",
    "estimate": "What a call will cost before it is made.",
    "record": "Write a call into the ledger.",
    "log": "The latest calls in the ledger.",
    "reconcile": "A provider's own report against the ledger.",
    "export": "The calls in the ledger as CSV, JSON lines or Parquet.",
    "keys": "Virtual keys for the gateway: create, list, rotate, revoke.",
    "ledger": "Look after the ledger: verify, repair, backup, restore, compact, migrate.",
    "simulate": "A local provider for tests: real wire formats, nothing billed.",
    "mcp": "Answer an agent's questions about cost (read-only).",
}
_LATER = ("cli", "Verbs", "run_verb")
"""What comes with click, which takes longer to import than the quickest answer takes to give."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 ok, 1 failed, 2 bad command line, 3 unpriced or unknown model, 4 incomplete,
    5 refused by a budget, 6 ledger unusable."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; no error reaches the user as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its number, and not an error.
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["statusline"] and words[1:] in ([], ["--strict"]):
        code: int = importlib.import_module("tallystick.cli.quick").statusline(strict="--strict" in words)
    else:
        code = importlib.import_module("tallystick.cli.verbs").run_verb(words)
    return code


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module("tallystick.cli.verbs"), name)
    raise AttributeError(f"module 'tallystick.cli' has no attribute {name!r}")


def printable(text: str) -> str:
    """Text from elsewhere, safe for a terminal: control and format characters are shown as escapes, newlines stay."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in whole
    )
