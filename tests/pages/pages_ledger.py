"""Ledgers that pages are looked at over: a lifelike one of a year, and odd ones."""

import random
from datetime import timedelta
from decimal import Decimal

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.config import Alerts
from tallystick.core.attribution import Tags
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Ask, Claim
from tallystick.ledger.query import Query
from tallystick.metering.alerts import Alerter
from tallystick.metering.budgets import put
from tallystick.metering.claims import stretch
from tallystick.metering.rules import make_budget

HELD = "0199c0de-0000-7000-8000-ffffffffffff"
NASTY = '<img src=x onerror="window.broken=1">'
MODELS = (
    ("openai", "gpt-5", "openai", 5),
    ("anthropic", "claude-sonnet-5", "anthropic", 6),
    ("openai", "gpt-4o-mini", "openai", 9),
    ("google", "gemini-2.5-flash", "google", 4),
    ("openai", "text-embedding-3-small", "openai", 2),
)
TEAMS = (("search", 5), ("support", 3), ("research", 2))
PEOPLE = ("ada", "grace", "linus", "margaret", "barbara", "ken", "dennis")
AGENTS = ("planner", "writer", "reviewer", "router")


def call(number, at, *, provider="openai", model="gpt-4o-mini", maker="openai", **fields):
    values = {
        "call_id": f"0199c0de-0000-7000-8000-{number:012x}",
        "started_at": at,
        "settled_at": at + timedelta(seconds=2),
        "provider": provider,
        "model": model,
        "maker": maker,
        "api": "openai.chat",
        "usage": Usage(input=900 + number % 700, output=120 + number % 90),
        "source": "gateway",
        "latency_us": 800_000 + 1000 * (number % 900),
        "ttft_us": 200_000 + 1000 * (number % 300),
        **fields,
    }
    return Entry(**values)


def priced(catalog, entry):
    """The entry with what the catalogue says it cost; as it is where that knows nothing."""
    found = catalog.find(entry.model, at=entry.started_at, provider=entry.provider)
    return msgspec.structs.replace(entry, cost=price(entry.usage, found.card, at=entry.started_at))


def year(now, calls=4000, seed=7):
    """The calls of a year, more of them of late: several models and teams, runs with steps, cached prompts, and all that
    goes wrong now and then."""
    chance, catalog = random.Random(seed), Catalog.bundled()
    weights = [model[3] for model in MODELS]
    for number in range(calls):
        days = 365 * (1 - (number / (calls - 60)) ** 0.45) if number < calls - 60 else 0
        at = now - timedelta(days=days, seconds=chance.randrange(3600) + 1)
        provider, model, maker, _ = chance.choices(MODELS, weights)[0]
        embedding = "embedding" in model
        prompt = int(chance.lognormvariate(9.6, 1.1))
        cached = 0 if embedding or chance.random() < 0.5 else prompt * chance.randrange(20, 90) // 100
        usage = {"input": prompt - cached, "cache_read": cached}
        usage["output"] = 0 if embedding else int(chance.lognormvariate(6.4, 0.9))
        tags = {"team": chance.choices([name for name, _ in TEAMS], [share for _, share in TEAMS])[0]}
        tags["user"], tags["agent"] = chance.choice(PEOPLE), chance.choice(AGENTS)
        run = number // 9 if chance.random() < 0.7 else None
        more = {} if run is None else {"run_id": f"run-{run:04}", "step": chance.choice(("plan", "search", "write"))}
        odd = chance.random()
        fields = {"provider": provider, "model": model, "maker": maker, "tags": Tags(tags), **more}
        entry = call(number, at, usage=Usage({kind: amount for kind, amount in usage.items() if amount}), **fields)
        if odd < 0.012:
            yield msgspec.structs.replace(entry, usage=None, quality="unknown", status="error", http_status=529)
        elif odd < 0.02:
            yield msgspec.structs.replace(entry, model="house-model-7b", provider="vllm", maker=None)
        elif odd < 0.03:
            yield msgspec.structs.replace(priced(catalog, entry), quality="lower_bound", status="cancelled")
        elif odd < 0.05:
            yield msgspec.structs.replace(priced(catalog, entry), source="log", owed=False)
        else:
            yield priced(catalog, entry)


def crowded(ledger, now):
    """A year of calls, budgets around them that are used up to a different degree, and a call that is held."""
    ledger.append(list(year(now)))
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    spent = ledger.total(Query(since=month))[0].cost.to_decimal()
    today = ledger.total(Query(since=now - timedelta(hours=now.hour, minutes=now.minute)))[0]
    rules = {
        "everything": {"limit": f"${spent / Decimal('0.83') + 1:.2f}/month", "alerts": [50, 80, 100]},
        "research": {"limit": f"${spent / 20 + 1:.2f}/week", "scope": {"team": "research"}, "alerts": [80, 100]},
        "people": {"limit": f"${spent / 8 + 1:.2f}/month", "each": ["user"]},
        "requests": {"limit": f"{today.calls + 1} calls/day", "hard": False},
    }
    made = [put(ledger, make_budget(name, {"tz": "UTC", **rule}, now), now) for name, rule in rules.items()]
    at = stretch(made[0].period, now)
    claim = Claim(budget_id="everything", value="", period=at.period, base=35 * 10**10, resets_at=at.resets_at)
    asked = Ask(
        hold_id=HELD, claims=(claim,), output=0, least=0, payload="x", version=ledger.budgets().version,
        expires_at=now + timedelta(hours=6),
    )  # fmt: skip
    ledger.authorise(asked).result(10)
    Alerter(ledger, Alerts()).look(made)


def one(ledger, now):
    """A single call."""
    ledger.append([priced(Catalog.bundled(), call(1, now - timedelta(minutes=3)))])


def unpriced(ledger, now):
    """Calls of which nobody knows what they cost."""
    ledger.append(
        [call(number, now - timedelta(minutes=number), model="house-model", provider="vllm") for number in range(5)]
    )


def nasty(ledger, now):
    """Names that would like to be markup."""
    catalog = Catalog.bundled()
    tags = Tags(
        {"team": NASTY, "user": "'\"><script>window.broken=1</script>", "<b>": "{{7*7}}", "agent": "=1+1\u202ex"}
    )
    rows = [
        call(number, now - timedelta(minutes=number), tags=tags, run_id=f"run/../{NASTY}", step=NASTY,
             stopped_by=NASTY, provider_response_id=NASTY, region=NASTY, tier=NASTY)
        for number in range(4)
    ]  # fmt: skip
    ledger.append([priced(catalog, row) for row in rows])
    ledger.append(
        [call(number, now - timedelta(minutes=number), model=NASTY, provider="other:x") for number in range(10, 13)]
    )
    put(ledger, make_budget("nasty", {"limit": "$5/day", "each": ["team"], "tz": "UTC"}, now), now)


def empty(ledger, now):
    """Nothing."""


LEDGERS = {"crowded": crowded, "one": one, "unpriced": unpriced, "nasty": nasty, "empty": empty}
