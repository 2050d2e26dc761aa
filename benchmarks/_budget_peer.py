"""One small budget library, in its own environment: many calls at once through the openai client against a simulator.

Run by benchmarks/budgets.py with the interpreter of the library's environment; it imports nothing of ours. Prints
`ready`, reads the prompt from its input, and prints one JSON line: calls that came back, calls refused and the HTTP
attempts these took, other errors, and what the library says was spent.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time

import openai

LIMIT = 0.40
MINE = threading.local()


def sent(_request):
    """The client makes an attempt."""
    MINE.attempts = getattr(MINE, "attempts", 0) + 1


def client(url):
    headers = {"x-delay-ms": os.environ.get("BUDGET_DELAY_MS", "60")}
    made = openai.OpenAI(api_key="none", base_url=url, max_retries=2, timeout=60, default_headers=headers)
    made._client.event_hooks["request"] = [sent]
    return made


def agentbudget(url):
    import agentbudget
    from agentbudget import AgentBudget, BudgetExhausted

    guarded = AgentBudget(max_spend=LIMIT).session()
    guarded.__enter__()
    wrapped = agentbudget.wrap_client(client(url), guarded)
    return wrapped.chat.completions.create, BudgetExhausted, lambda: guarded.spent


def floe_guard(url):
    from floe_guard import BudgetExceeded, BudgetGuard, UnpriceableModelError
    from floe_guard.integrations.openai import guarded_completion

    guard, plain = BudgetGuard(limit_usd=LIMIT), client(url)

    def create(**request):
        return guarded_completion(guard, plain, **request)

    return create, (BudgetExceeded, UnpriceableModelError), lambda: guard.spent_usd


def agent_budget_guard(url):
    from agent_budget_guard import BudgetedSession, BudgetError

    guarded = BudgetedSession(budget_usd=LIMIT)
    wrapped = guarded.wrap_openai(client(url))
    return wrapped.chat.completions.create, BudgetError, guarded.get_total_spent


def tokenbudget(url):
    from tokenbudget import TokenBudgetError, TokenTracker
    from tokenbudget.budget import BudgetContext

    counting = TokenTracker()
    wrapped = counting.wrap_openai(client(url))
    guard = BudgetContext(LIMIT, None, counting)

    def create(**request):
        guard.check_limits()
        return wrapped.chat.completions.create(**request)

    return create, TokenBudgetError, lambda: counting.total_cost_usd


def litellm(url):
    import litellm as sdk

    sdk.max_budget = LIMIT
    headers = {"x-delay-ms": os.environ.get("BUDGET_DELAY_MS", "60")}

    def create(**request):
        model = "openai/" + request.pop("model")
        return sdk.completion(model=model, api_base=url, api_key="none", extra_headers=headers, **request)

    return create, sdk.BudgetExceededError, lambda: sdk._current_cost


LIBRARIES = {made.__name__: made for made in (agentbudget, floe_guard, agent_budget_guard, tokenbudget, litellm)}


class Tally:
    """How the calls came out."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {"served": 0, "refused": 0, "errors": 0, "attempts": 0}
        self.said = {}

    def add(self, kind, said=""):
        with self.lock:
            self.counts[kind] += 1
            if kind == "refused":
                self.counts["attempts"] += getattr(MINE, "attempts", 0)
            if said:
                self.said.setdefault(kind, said[:200])


def consume(answer, mode):
    """Reads an answer; in the mode `early` a stream is left after three chunks."""
    if mode == "chat":
        return
    with contextlib.closing(answer) if hasattr(answer, "close") else contextlib.nullcontext():
        for number, _ in enumerate(answer):
            if mode == "early" and number >= 3:
                break


def run(create, refusals, request, mode, calls):
    tally = Tally()
    barrier = threading.Barrier(calls)

    def one():
        barrier.wait()
        MINE.attempts = 0
        try:
            consume(create(**request), mode)
        except refusals as error:
            tally.add("refused", str(error))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is an outcome here
            tally.add("errors", f"{type(error).__name__}: {error}")
        else:
            tally.add("served")

    threads = [threading.Thread(target=one) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--library", choices=LIBRARIES)
    options.add_argument("--url")
    options.add_argument("--mode", choices=["chat", "stream", "early"])
    options.add_argument("--max-tokens", type=int, default=0)
    options.add_argument("--model")
    options.add_argument("--calls", type=int, default=100)
    given = options.parse_args()
    create, refusals, claimed = LIBRARIES[given.library](given.url)
    print("ready", flush=True)
    request = {"model": given.model, "messages": [{"role": "user", "content": sys.stdin.read()}]}
    if given.max_tokens:
        request["max_tokens"] = given.max_tokens
    if given.mode != "chat":
        request["stream"] = True
    tally = run(create, refusals, request, given.mode, given.calls)
    # Some count in threads of their own.
    time.sleep(1)
    print(json.dumps({**tally.counts, "claimed_usd": float(claimed()), "said": tally.said}), flush=True)
    # What a library still does in threads of its own is no part of this.
    os._exit(0)


if __name__ == "__main__":
    main()
