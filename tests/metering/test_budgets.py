"""Budgets as people write them, what they begin with, and money held for what is no call."""

import importlib
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tallystick.config import parse_config
from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import BudgetExceeded, ConfigError, InputError
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Refused
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission, open_admission
from tallystick.metering.budgets import apply, find_budget, put, refusal, standings
from tallystick.metering.desk import refusal_words
from tallystick.metering.rules import limit_words, make_budget, parse_limit

NOW = datetime.now(UTC)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    made = MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path / "ledger.db")
    with made:
        yield made
        assert made.verify() == []


def call(number, *, at=NOW, usd="0.01", **fields):
    values = {
        "call_id": f"call-{number}", "started_at": at, "provider": "openai", "model": "model-a",
        "usage": Usage(input=100, output=10), "cost": Cost((), Money.usd(usd).pico), "source": "client", "tags": Tags(team="a"),
    }  # fmt: skip
    return Entry(**{**values, **fields})


@pytest.mark.parametrize(
    ("text", "limit", "unit", "period"),
    [
        ("$50/day", 50 * 10**12, "usd", "day"),
        ("$20", 20 * 10**12, "usd", "lifetime"),
        ("20 USD/week", 20 * 10**12, "usd", "week"),
        ("$1,000.50 per month", 1000_500_000_000_000, "usd", "month"),
        ("1M tokens/month", 10**6, "tokens", "month"),
        ("1.5k tokens", 1500, "tokens", "lifetime"),
        ("100 calls/1m", 100, "calls", "rolling"),
        ("60 requests per minute", 60, "calls", "rolling"),
    ],
)
def test_limits(text, limit, unit, period):
    amount, found, stretch = parse_limit(text)
    assert (amount, found, stretch.unit) == (limit, unit, period)


@pytest.mark.parametrize(
    "text", ["-$3", "50", "$5 tokens", "$5/fortnight", "$5/0s", "1.5 calls", "", "$", "tokens", "$1/99999999w"]
)
def test_limits_that_make_no_sense(text):
    with pytest.raises(InputError) as caught:
        parse_limit(text)
    assert "Nothing was changed" in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        {"limit": 5}, {}, {"limit": "$5", "scope": {"taem": "a"}}, {"limit": "$5", "scope": "team=a"},
        {"limit": "$5/day", "tz": "Mars/Olympus"}, {"limit": "$5/day", "anchor": 2}, {"limit": "$5/day", "anchor": "x"},
        {"limit": "$5", "each": ["user", "user"]}, {"limit": "$5", "each": ["user"], "scope": {"user": "a"}},
        {"limit": "$5", "each": [7]}, {"limit": "$5", "alerts": [0]}, {"limit": "$5", "alerts": ["a"]},
        {"limit": "$5", "hard": "yes"}, {"limit": "$5", "failure": "ajar"}, {"limit": "$5", "sources": ["rumour"]},
        {"limit": "$5", "scope": {"team": ""}},
    ],
)  # fmt: skip
def test_rules_that_make_no_sense(rule):
    with pytest.raises(InputError):
        make_budget("b", rule)


def test_a_slip_in_a_scope_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'team'"):
        make_budget("b", {"limit": "$5", "scope": {"taem": "a"}})
    with pytest.raises(InputError, match="cannot name a budget"):
        make_budget("a b", {"limit": "$5"})


def test_limits_are_said_as_they_are_written():
    for text, words in (
        ("$50/day", "$50.00/day"),
        ("100 calls/90s", "100 calls/90s"),
        ("5 calls/120s", "5 calls/2m"),
        ("$20", "$20.00"),
    ):
        assert limit_words(make_budget("b", {"limit": text})) == words


@pytest.mark.parametrize(
    "text",
    [
        "[budgets.b]\nlimt = '$5'", "budgets = 3", "[budgets]\nb = 3", "[budgets]\nadmission_wait = -1", "[budgets]\nadmission_wait = true",
        "alerts = 3", "[alerts]\nwebhok = 'x'", "[alerts]\nslack = 'https://hooks.example'", "[alerts]\nwebhook = 'ftp://x'",
        "[alerts]\ncommand = 'notify-send x'", "[alerts]\nwebhook = [3]",
    ],
)  # fmt: skip
def test_configurations_that_make_no_sense(text):
    with pytest.raises(ConfigError):
        parse_config(text)


def test_a_configuration_puts_its_budgets_into_the_ledger(ledger):
    text = """
        timezone = "Europe/Berlin"
        [budgets]
        admission_wait = 0.5
        [budgets.team-a]
        limit = "$5/day"
        scope = {team = "a"}
        alerts = [80, 50]
        [alerts]
        webhook = "env:HOOK"
        command = ["true"]
    """
    config = parse_config(text)
    assert config.admission_wait == 0.5
    assert config.alerts
    assert not parse_config("").alerts
    ledger.append([call(1)])
    apply(ledger, config, NOW)
    version = ledger.budgets().version
    apply(ledger, config, NOW)
    assert ledger.budgets().version == version  # nothing has changed
    budget = find_budget(ledger, "team-a")
    assert budget.period.tz == "Europe/Berlin"
    assert budget.alerts == (50, 80)
    apply(ledger, parse_config(text.replace("$5/day", "$6/day")), NOW)
    assert find_budget(ledger, "team-a").limit == 6 * 10**12
    assert standings(ledger, find_budget(ledger, "team-a"), NOW)[0].spent == 10**10
    with pytest.raises(ConfigError, match=r"budgets\.team-a"):
        apply(ledger, parse_config(text.replace("team =", "taem =")), NOW)


def test_what_was_spent_in_scope_counts_from_the_beginning(ledger):
    long_ago = NOW - timedelta(days=70)
    ledger.append(
        [
            call(1),
            call(2, tags=Tags(team="a", user="ada")),
            call(3, tags=Tags(team="b")),
            call(4, source="log", provider_response_id="x"),
            call(5, at=long_ago),
            call(6, owed=False),
            call(7, run_id="r", step="plan"),
        ]
    )

    def spent(limit, **rule):
        name = f"b{len(ledger.budgets().budgets)}"
        budget = put(ledger, make_budget(name, {"limit": limit, **rule}), NOW)
        return {one.value: one.spent for one in standings(ledger, budget, NOW)}

    cent = 10**10
    assert spent("$5/month", scope={"team": "a"}) == {"": 3 * cent}
    assert spent("$5", scope={"team": "a"}) == {"": 4 * cent}
    assert spent("$5/month", scope={"team": "a"}, sources=["log"]) == {"": 4 * cent}
    assert spent("$5/month", each=["user"]) == {"user=(absent)": 3 * cent, "user=ada": cent}
    assert spent("1M tokens/month", scope={"team": "a", "provider": "openai"}) == {"": 440}
    assert spent("9 calls/month", scope={"tag:team": "a", "model": "model-a"}) == {"": 4}
    assert spent("9 calls/24h", scope={"team": "a"}) == {"": 4}
    assert spent("$5", scope={"run": "r"}) == {"": cent}
    assert spent("9 calls", scope={"step": "plan"}) == {"": 1}


def test_an_edit_keeps_what_was_used_and_what_was_raised(ledger):
    ledger.append([call(1), call(2, at=NOW - timedelta(days=40))])
    put(ledger, make_budget("b", {"limit": "$5/day"}, NOW), NOW)
    until = NOW + timedelta(hours=1)
    ledger.put_budget(msgspec.structs.replace(find_budget(ledger, "b"), raised_by=7, raised_until=until, paused=True))
    put(ledger, make_budget("b", {"limit": "$6"}), NOW)
    budget = find_budget(ledger, "b")
    assert (budget.limit, budget.raised_by, budget.raised_until, budget.paused) == (6 * 10**12, 7, until, True)
    assert budget.created_at == NOW
    assert standings(ledger, budget, NOW)[0].spent == 2 * 10**10  # a lifetime began with both calls
    for rule in ({"limit": "5 calls"}, {"limit": "$5", "scope": {"team": "a"}}):
        with pytest.raises(InputError, match="another scope or unit"):
            put(ledger, make_budget("b", rule), NOW)
    with pytest.raises(InputError, match="There are: b"):
        find_budget(ledger, "c")


def test_money_is_held_for_what_is_no_call(ledger):
    put(ledger, make_budget("tools", {"limit": "$0.25"}), NOW)
    put(ledger, make_budget("calls", {"limit": "5 calls"}), NOW)
    admission = BudgetAdmission(ledger, lambda: None, wait=0.0)
    purse = admission.budget("tools")
    with purse.hold(at_most="$0.10", what="search", tags={"user": "ada"}) as hold:
        assert standings(ledger, find_budget(ledger, "tools"), NOW)[0].held == 10**11
        hold.settle("$0.03")
        with pytest.raises(InputError):
            hold.settle("$0.03")
    with purse.hold(at_most="$0.20"):
        pass
    stands = standings(ledger, find_budget(ledger, "tools"), NOW)[0]
    assert (stands.spent, stands.held) == (3 * 10**10, 0)
    (entered,) = ledger.read()
    assert (entered.model, entered.amount, entered.tags["user"]) == ("search", Money.usd("0.03"), "ada")
    with pytest.raises(BudgetExceeded) as caught, purse.hold(at_most="$0.23"):
        pass
    assert "$0.03 spent and $0.00 held of $0.25; this call may cost up to $0.23." in str(caught.value)
    told = refusal(caught.value)
    assert (told.budget, told.unit, told.spent, told.limit) == ("tools", "usd", Money.usd("0.03"), Money.usd("0.25"))
    with pytest.raises(InputError):
        admission.budget("calls")
    with pytest.raises(InputError):
        purse.hold(at_most=None)
    admission.close()


def test_a_refusal_is_read_out_of_any_error():
    said = (
        "Error code: 429 - {'error': {'message': 'Budget each (user=ada (x)): 1,200 tokens spent and 0 tokens held of "
        "1,500 tokens; this call may take up to 400 tokens. It resets at 2026-11-23 00:00 UTC.'}}"
    )
    told = refusal(RuntimeError(said))
    assert (told.budget, told.value, told.unit) == ("each", "user=ada (x)", "tokens")
    assert (told.spent, told.held, told.limit, told.asked) == (1200, 0, 1500, 400)
    assert told.resets_at == datetime(2026, 11, 23, tzinfo=UTC)
    rolling = "Budget b: 2 calls spent and 0 calls held of 2 calls; this call may take up to 1 calls. There is room again in 1,012 s."
    assert refusal(ValueError(rolling)).retry_after == 1012
    behind = Refused(budget_id="b", value="", spent=1, held=1, limit=5, asked=1, resets_at=MONDAY, queued=True)
    told = refusal(ValueError(refusal_words(make_budget("b", {"limit": "5 calls/day"}), behind)))
    assert (told.queued, told.resets_at, told.asked) == (True, MONDAY, 1)
    assert refusal(ValueError("Budget of time exceeded")) is None


TOLD = "Budget team-a: $0.36 spent and $0.04 held of $0.40; this call may cost up to $0.04. It resets at 2026-11-23 00:00 UTC."


def refused_by(api):
    """The answer of our own that a transport hands over."""
    from tallystick.wire.answers import refusal as answer

    return answer(api, TOLD)


def check(error):
    told = refusal(error)
    assert (told.budget, told.spent, told.held) == ("team-a", Money.usd("0.36"), Money.usd("0.04"))
    assert told.limit == Money.usd("0.40")
    assert told.resets_at == datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize("maker", ["openai", "anthropic", "google", "aws"])
def test_a_refusal_is_read_out_of_the_errors_of_each_sdk(maker):
    if maker == "aws":
        from botocore.exceptions import ClientError

        body = json.loads(refused_by("bedrock.converse")[2])
        check(ClientError({"Error": {"Code": "ServiceQuotaExceededException", "Message": body["message"]}}, "Converse"))
        return
    if maker == "google":
        from google.genai.errors import ClientError as GoogleError

        status, _, raw = refused_by("gemini.generateContent")
        check(GoogleError(status, json.loads(raw)))
        return
    sdk, http = importlib.import_module(maker), importlib.import_module("httpx2")
    api = "openai.chat" if maker == "openai" else "anthropic.messages"
    status, headers, raw = refused_by(api)
    attempts = []

    def answer(request):
        attempts.append(request)
        return http.Response(status, headers=headers, content=raw)

    with http.Client(transport=http.MockTransport(answer)) as carrier:
        if maker == "openai":
            call = sdk.OpenAI(api_key="x", http_client=carrier).chat.completions.create
        else:
            call = sdk.Anthropic(api_key="x", http_client=carrier).messages.create
        with pytest.raises(sdk.RateLimitError) as caught:
            call(model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=5)
    check(caught.value)
    assert len(attempts) == 1


def test_an_admission_is_opened_by_the_configuration(tmp_path):
    config = parse_config("[budgets]\nadmission_wait = 0\n[budgets.b]\nlimit = '$1'\n[alerts]\ncommand = ['true']")
    with MemoryLedger() as ledger:
        admission = open_admission(ledger, config, lambda: None)
        assert find_budget(ledger, "b").limit == 10**12
        assert admission.desk.wait == 0
        admission.close()
    closed = SqliteLedger(tmp_path / "closed.db")
    closed.close()
    admission = open_admission(closed, config, lambda: None)
    assert admission.faults == 1
    assert list(admission.desk.matcher().budgets) == ["b"]
    admission.close()
    with pytest.raises(ConfigError):
        open_admission(closed, parse_config("[budgets.b]\nlimit = '5'"), lambda: None)
