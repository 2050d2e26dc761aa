"""tally explain --call: the stages of one call say what truly happened, to three providers, and no key is shown."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from livedesk import DEMO, TALLY, drawn, said

from tallystick import front
from tallystick.core.money import Money
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Answer

SECRET = "sk-this-is-a-secret-1234567890"
TEXT = "Say hello in three languages, please."
DOORS = {
    "openai": ("gpt-4o", "OPENAI_API_KEY", "OPENAI_BASE_URL", "authorization", f"Bearer {SECRET}"),
    "anthropic": ("claude-sonnet-5", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "x-api-key", SECRET),
    "google": ("gemini-3.5-flash", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "x-goog-api-key", SECRET),
}


def explained(home, *options, **env):
    return said([*TALLY, "explain", *options], home, **env)


def door_of(sim, provider="openai"):
    """The environment of somebody whose provider is the simulator."""
    _, key, base, *_ = DOORS[provider]
    return {key: SECRET, base: sim.openai_url if provider == "openai" else sim.url}


def entries(home):
    with SqliteLedger(home / "ledger.db", read_only=True) as ledger:
        return list(ledger.read(Query()))


def everything_in(home):
    return b"".join(place.read_bytes() for place in home.rglob("*") if place.is_file())


@pytest.mark.parametrize("provider", DOORS)
def test_a_call_to_a_provider(home, simulate, provider):
    model, _, _, header, value = DOORS[provider]
    sim = simulate(Answer(text="Hello, bonjour, hallo.", cached_tokens=3, chunk_ms=2))
    done = explained(home, "--call", TEXT, "-m", model, "--provider", provider, "--json", **door_of(sim, provider))
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    (call,) = sim.calls
    (entry,) = entries(home)
    assert call.headers[header] == value
    assert entry.usage == call.usage
    assert entry.amount == front.price(call.usage, model, provider=provider).amount
    assert story["entry"] == entry.to_json()
    assert story["ledger"] == str(home / "ledger.db")
    assert story["answer"]["bytes"] == len(call.response)
    assert story["bound"]["input"] >= call.usage.input_tokens
    assert Money.usd(story["bound"]["cost"]["usd"]) >= entry.amount > Money(0)
    if provider == "openai":
        assert story["injected"] == {"stream_options": {"include_usage": True}}
        assert json.loads(call.body)["stream_options"] == {"include_usage": True}
        assert story["answer"]["handed_over"] < story["answer"]["bytes"]
        assert story["answer"]["counted"] == call.usage.output_tokens
    else:
        assert story["injected"] == {}
        assert story["answer"]["handed_over"] == story["answer"]["bytes"]
        assert 0 < story["answer"]["counted"] <= call.usage.output_tokens
    assert SECRET not in done.stdout + done.stderr
    assert SECRET.encode() not in everything_in(home)


def test_nothing_is_sent_without_call(home, simulate):
    sim = simulate()
    done = explained(home, TEXT, **door_of(sim))
    assert done.returncode == 0, done.stderr
    assert sim.calls == []
    assert not (home / "ledger.db").exists()


def test_without_a_key_it_is_simulated_and_leaves_no_entry(home):
    done = explained(home, "--call", TEXT)
    assert done.returncode == 0, done.stderr
    assert "simulated: OPENAI_API_KEY is not set" in done.stdout
    assert "in memory: nothing was billed" in done.stdout
    assert not (home / "ledger.db").exists()


def test_simulate_goes_before_a_key(home, simulate):
    sim = simulate()
    done = explained(home, "--call", "--simulate", "--answer", "Yes.", "--json", TEXT, **door_of(sim))
    story = json.loads(done.stdout)
    assert sim.calls == []
    assert story["entry"]["usage"]["output"] == front.count("Yes.", "gpt-4o").tokens == story["answer"]["counted"]
    assert story["request"]["how"] == "simulated, as you asked"


def test_the_stages_in_their_order(home):
    done = explained(home, "--call", "--simulate", TEXT)
    labels = [line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert labels == ["request", "facts", "bound", "inject", "answer", "stream", "bytes", "counted", "usage", "cost",
                      "ledger"]  # fmt: skip
    assert re.search(r"counted +(\d+) tokens in the text, \1 stated at the end: the same", done.stdout)


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_it_fits_the_terminal(home, columns):
    shown, code = drawn([*TALLY, "explain", "--call", "--simulate", TEXT], home, columns)
    assert code == 0, shown
    assert "bytes so far" in shown  # the line that is rewritten while the answer streams
    kept = [line.rpartition("\r")[2] for line in shown.splitlines()]
    assert max(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) for line in kept) <= columns
    assert kept[-1].endswith("nothing was billed") or "billed" in kept[-1]


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_provider_that_says_no(home, simulate, status):
    sim = simulate(Answer(status=status, message=f"Wrong: {SECRET} and sk-this***7890"))
    done = explained(home, "--call", TEXT, "--provider", "openai", **door_of(sim))
    assert done.returncode == 1
    assert f"error    {status}: " in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert ("sk-this***" in done.stdout) == (status not in (401, 403))
    (entry,) = entries(home)
    assert (entry.status, entry.http_status, entry.amount) == ("error", status, Money(0))


def test_a_connection_that_breaks(home, simulate):
    sim = simulate(Answer(output_tokens=60, cut_after=20))
    done = explained(home, "--call", TEXT, "--provider", "openai", "--json", **door_of(sim))
    assert done.returncode == 1
    story = json.loads(done.stdout)
    (call,) = sim.calls
    (entry,) = entries(home)
    assert "broke" in story["answer"]["problem"]
    assert entry.quality == "lower_bound"
    assert entry.usage.output_tokens == front.count(call.delivered, "gpt-4o").tokens == story["answer"]["counted"]


def test_who_bills_behind_a_base_url_of_ones_own_is_not_guessed(home, simulate):
    done = explained(home, "--call", TEXT, **door_of(simulate()))
    assert done.returncode == 3
    assert "--provider NAME" in done.stdout
    assert entries(home)[0].amount is None


def test_a_redirect_is_not_followed(home, simulate):
    sim = simulate()
    asked = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"{sim.openai_url}/models")
            self.end_headers()

        def log_message(self, *_words):
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        env = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1"}
        done = explained(home, "--call", TEXT, "--provider", "openai", **env)
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    assert asked == ["/v1/chat/completions"]
    assert sim.calls == []


def test_nobody_there(home, simulate):
    sim = simulate()
    env = door_of(sim)
    sim.stop()
    done = explained(home, "--call", TEXT, "--provider", "openai", **env)
    assert done.returncode == 1
    assert "gave no answer" in done.stderr
    assert [entry.amount for entry in entries(home)] == [Money(0)]


@pytest.mark.parametrize("env", [
    {"OPENAI_API_KEY": f"{SECRET}\nx: y"},
    {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "ftp://127.0.0.1/v1"},
    {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://127.0.0.1/a b"},
    {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://127.0.0.1:port/v1"},
    {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "127.0.0.1/v1"},
])  # fmt: skip
def test_an_environment_that_cannot_be_used(home, env):
    done = explained(home, "--call", TEXT, **env)
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [["--simulate"], ["--call", "--rate", "5"], ["--call", "--answer", "Yes"]])
def test_options_that_do_not_go_together(home, options):
    assert explained(home, TEXT, *options).returncode == 2


STRICT = """
[budgets.nothing]
limit = "$0.000001/day"
"""


def test_a_budget_that_refuses(home, simulate):
    """A real call is refused before it is sent; what nobody bills is none of a budget's business."""
    (home / "tally.toml").write_text(STRICT)
    sim = simulate()
    env = {**door_of(sim), "TALLY_CONFIG": str(home / "tally.toml")}
    done = explained(home, "--call", TEXT, "--provider", "openai", **env)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "refused  not sent; a client gets status 429" in done.stdout
    assert sim.calls == []
    assert [entry.status for entry in entries(home)] == ["refused"]
    assert explained(home, "--call", TEXT, "--simulate", **env).returncode == 0
    assert said([*DEMO, "--plain", "--fast"], home, **env).returncode == 0
