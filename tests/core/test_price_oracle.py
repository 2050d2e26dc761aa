"""price() against the most naive way to price: unit by unit, minute by minute, in fractions."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.core.pricing import price
from tallystick.core.rates import Brackets, Cliff, FlatPlan, Multiplier, Rate, RateCard, Variant, Window
from tallystick.core.usage import INPUT_KINDS, Usage

KINDS = ["input", "cache_read", "cache_write", "cache_write_5m", "output", "reasoning", "fee:x", "milliseconds_input"]
TOKENS = {"input", "cache_read", "cache_write", "cache_write_5m", "output", "reasoning"}
SETTINGS = [
    ("service_tier", "flex"),
    ("service_tier", "priority"),
    ("region", "eu"),
    ("region", "*"),
    ("processing", "batch"),
]

dollars = st.decimals(0, 1000, places=7, allow_nan=False)
kinds = st.sampled_from(KINDS)
conditions = st.lists(st.sampled_from(SETTINGS), max_size=2, unique=True).map(tuple)
cliffs = st.lists(
    st.builds(Cliff, st.integers(1, 90), dollars, st.booleans()), max_size=3, unique_by=lambda c: c.first
).map(tuple)
brackets = st.builds(
    lambda mode, first, more: Brackets(mode, "month", ((0, first), *sorted(more.items()))),
    st.sampled_from(["graduated", "volume"]),
    dollars,
    st.dictionaries(st.integers(1, 120), dollars, max_size=3),
)
pers = st.sampled_from([1, 7, 1000, 1_000_000, 3_600_000])
plain_rates = st.builds(Rate, dollars, pers, cliffs)
odd_rates = st.builds(
    Rate,
    dollars,
    pers,
    brackets=st.none() | brackets,
    minimum=st.sampled_from([0, 0, 1, 30]),
    step=st.sampled_from([1, 1, 7]),
)
rates = st.dictionaries(kinds, plain_rates | odd_rates, max_size=6)
windows = st.builds(
    Window,
    st.integers(0, 1439),
    st.integers(0, 1440),
    st.lists(st.integers(1, 7), min_size=1, max_size=7, unique=True).map(tuple),
    st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
)
variants = st.lists(
    st.builds(Variant, st.sampled_from("abc"), rates, conditions, st.lists(windows, max_size=2).map(tuple)), max_size=3
).map(tuple)
multipliers = st.lists(
    st.builds(
        Multiplier,
        st.sampled_from(["regional", "batch"]),
        st.decimals(0, 3, places=3),
        conditions,
        st.lists(kinds, max_size=3).map(tuple),
        st.lists(st.sampled_from("abc"), max_size=1).map(tuple),
    ),
    max_size=2,
).map(tuple)
plans = st.builds(
    FlatPlan, st.just("Flat"), dollars, st.just("month"), st.dictionaries(kinds, st.integers(0, 100), max_size=3)
)
cards = st.builds(
    RateCard,
    st.just("acme"),
    st.just("m"),
    rates,
    variants=variants,
    multipliers=multipliers,
    fallbacks=st.dictionaries(kinds, kinds, max_size=5),
    plan=st.none() | plans,
)
instants = st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)) | st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes),
    st.sampled_from([datetime(2025, 3, 30, 1, tzinfo=UTC), datetime(2025, 11, 2, 6, tzinfo=UTC)]),
    st.integers(-1500, 1500),
)
contexts = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "service_tier": st.sampled_from(["flex", "priority", "standard", ""]),
        "region": st.sampled_from(["eu", "us", ""]),
        "processing": st.just("batch"),
        "other": st.just("x"),
    },
)
usages = st.dictionaries(kinds, st.integers(0, 60), max_size=5).map(Usage)
volumes = st.none() | st.dictionaries(kinds, st.integers(0, 150), max_size=4)


def matches(when, context):
    for key, value in when:
        stated = (context or {}).get(key)
        if value == "*" and not stated:
            return False
        if value != "*" and stated != value:
            return False
    return True


def is_open(window, at):
    now = at.astimezone(ZoneInfo(window.tz)).replace(tzinfo=None, second=0, microsecond=0)
    minutes = window.end - window.start if window.end > window.start else 1440 - window.start + window.end
    for back in (0, 1):
        day = datetime.combine(now.date(), datetime.min.time()) - timedelta(days=back)
        if day.isoweekday() in window.weekdays:
            for minute in range(minutes):
                if day + timedelta(minutes=window.start + minute) == now:
                    return True
    return False


def own_rate(card, kind, at, context):
    for variant in card.variants:
        if matches(variant.when, context) and (not variant.windows or any(is_open(w, at) for w in variant.windows)):
            if kind in variant.rates:
                return variant.rates[kind], variant.name
    return (card.rates[kind], "") if kind in card.rates else None


def line(card, kind, quantity, prompt, at, context, volume):
    """Picodollars of one line, or None."""
    home, tried = kind, []
    while own_rate(card, home, at, context) is None:
        tried.append(home)
        if home not in card.fallbacks or card.fallbacks[home] in tried:
            return None
        home = card.fallbacks[home]
    rate, variant = own_rate(card, home, at, context)
    factor = Fraction(1)
    for multiplier in card.multipliers:
        covered = home in multiplier.kinds if multiplier.kinds else home in TOKENS
        if covered and matches(multiplier.when, context) and variant not in multiplier.unless:
            factor *= Fraction(multiplier.factor)
    usd = rate.usd
    for cliff in sorted(rate.cliffs, key=lambda c: (c.above, not c.inclusive)):
        if prompt > cliff.above or (cliff.inclusive and prompt == cliff.above):
            usd = cliff.usd
    billed = max(quantity, rate.minimum)
    while billed % rate.step:
        billed += 1
    before = (volume or {}).get(kind, 0)
    included = card.plan.allowance.get(kind, 0) if card.plan else 0
    total = Fraction(0)
    for position in range(before, before + billed):
        if position < included:
            continue
        if rate.brackets:
            decisive = position if rate.brackets.mode == "graduated" else before + billed - 1
            for start, step_usd in rate.brackets.steps:
                if start <= decisive:
                    usd = step_usd
        total += Fraction(usd) / rate.per * factor
    return round(total * 10**12)


@settings(max_examples=3 * settings().max_examples)
@given(usages, cards, instants, contexts, volumes)
def test_price_is_what_counting_unit_by_unit_gives(usage, card, at, context, volume):
    cost = price(usage, card, at=at, context=context, volume=volume)
    prompt = sum(usage.get(kind, 0) for kind in INPUT_KINDS)
    expected = [line(card, kind, quantity, prompt, at, context, volume) for kind, quantity in usage.items()]
    assert [row.pico for row in cost.lines] == expected
    assert [row.kind for row in cost.lines] == list(usage)
    assert cost.pico == (None if None in expected else sum(expected))
    assert cost.known.pico == sum(pico for pico in expected if pico is not None)
    assert cost.unpriced == tuple(kind for kind, pico in zip(usage, expected, strict=True) if pico is None)
    # The compiled plan answers the second call; the shared card answers other contexts.
    assert price(usage, card, at=at, context=context, volume=volume) == cost


@given(cards, st.lists(st.tuples(usages, instants, contexts), min_size=2, max_size=5))
def test_what_was_priced_before_changes_nothing(card, calls):
    together = [price(usage, card, at=at, context=context) for usage, at, context in calls]
    for (usage, at, context), cost in zip(calls, together, strict=True):
        fresh = RateCard(
            card.provider, card.model, card.rates, variants=card.variants, multipliers=card.multipliers,
            fallbacks=card.fallbacks, plan=card.plan,
        )  # fmt: skip
        assert price(usage, fresh, at=at, context=context) == cost


@given(st.integers(1, 2**53 - 1), dollars, st.sampled_from([1, 1_000_000, 3_600_000, 7]))
def test_large_quantities_are_exact(quantity, usd, per):
    card = RateCard("acme", "m", {"input": Rate(usd, per)})
    cost = price(Usage(input=quantity), card, at=datetime(2026, 1, 1, tzinfo=UTC))
    assert cost.pico == round(Fraction(usd) * quantity / per * 10**12)


@given(st.integers(1, 10**12), st.lists(st.integers(1, 10**12), max_size=4, unique=True), st.integers(0, 10**12))
def test_graduated_brackets_add_up_over_calls(quantity, starts, used):
    steps = tuple((start, Decimal(position + 1)) for position, start in enumerate([0, *sorted(starts)]))
    card = RateCard("acme", "m", {"input": Rate(Decimal(1), 1, brackets=Brackets("graduated", "month", steps))})
    at = datetime(2026, 1, 1, tzinfo=UTC)
    first = quantity // 2
    whole = price(Usage(input=quantity), card, at=at, volume={"input": used})
    parts = [
        price(Usage(input=first), card, at=at, volume={"input": used}),
        price(Usage(input=quantity - first), card, at=at, volume={"input": used + first}),
    ]
    assert whole.pico == sum(part.pico for part in parts)
