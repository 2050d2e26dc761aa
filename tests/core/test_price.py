from datetime import UTC, datetime, timedelta
from decimal import Decimal as D

import pytest

from tallystick.core.money import Money
from tallystick.core.pricing import MAX_PLANS, plan_fee, plan_for, price, reported
from tallystick.core.rates import Brackets, Cliff, FlatPlan, Multiplier, Rate, RateCard, Variant, Window
from tallystick.core.usage import Usage
from tallystick.errors import CatalogError, InputError

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)  # a Saturday


def card(rates=None, **more):
    rates = {"input": Rate(D("2.50")), "output": Rate(D(10)), "cache_read": Rate(D("1.25"))} if rates is None else rates
    return RateCard("acme", "m", rates, source="a page", **more)


def cost(counts, of=None, context=None, at=AT, volume=None):
    return price(Usage(counts), of or card(), at=at, context=context, volume=volume)


def test_a_cost_is_a_dot_product():
    found = cost({"input": 1000, "output": 100, "cache_read": 8})
    assert found.amount == Money.usd("0.00351")
    assert [(line.kind, line.quantity, str(line.amount)) for line in found.lines] == [
        ("input", 1000, "$0.0025"), ("cache_read", 8, "$0.00001"), ("output", 100, "$0.001"),
    ]  # fmt: skip
    assert (found.basis, found.rate_ids, found.catalogue, found.notes, found.unpriced) == (
        "list",
        ("acme/m",),
        None,
        (),
        (),
    )
    assert cost({}).amount == Money()
    assert cost({}).lines == ()


def test_each_line_is_rounded_once_half_even():
    of = card({"input": Rate(D("0.0000005"), 1_000_000), "output": Rate(D("0.0000015"), 1_000_000)})
    assert [line.pico for line in cost({"input": 1, "output": 1}, of).lines] == [0, 2]
    assert cost({"input": 2, "output": 2}, of).pico == 1 + 3
    assert cost({"input": 3}, of).pico == 2
    hourly = card({"milliseconds_input": Rate(D("0.111"), 3_600_000)})
    assert cost({"milliseconds_input": 10_000}, hourly).pico == round(111 * 10**9 * 10_000 / 3_600_000)


def test_a_kind_without_a_rate_is_unpriced_never_zero():
    found = cost({"input": 1000, "audio_input": 5})
    assert found.amount is None
    assert found.pico is None
    assert found.known == Money.usd("0.0025")
    assert found.unpriced == ("audio_input",)
    line = found.lines[1]
    assert (line.amount, line.rate, line.per, line.multipliers, line.source) == (None, None, None, (), None)
    assert line.note == "no rate for this kind"
    assert cost({"input": 1}, card({})).amount is None
    assert cost({"input": 1}, card({"input": Rate(D(0))})).amount == Money()


def test_cliffs_raise_every_token_of_the_request():
    of = card(
        {
            "input": Rate(D(1), cliffs=(Cliff(200, D(2)), Cliff(400, D(3)))),
            "output": Rate(D(1), cliffs=(Cliff(200, D(5), inclusive=True),)),
            "cache_read": Rate(D(1)),
        }
    )
    assert of.thresholds == (200, 201, 401)
    for prompt, first, second in ((199, 1, 1), (200, 1, 5), (201, 2, 5), (400, 2, 5), (401, 3, 5)):
        found = cost({"input": 1, "cache_read": prompt - 1, "output": 1}, of)
        assert [line.rate for line in found.lines] == [first, 1, second]
        assert [line.pico for line in found.lines] == [first * 10**6, (prompt - 1) * 10**6, second * 10**6]


def test_variants_replace_kind_by_kind_and_say_so():
    of = card(
        variants=(
            Variant("flex", {"input": Rate(D(1))}, (("service_tier", "flex"),), source="flex page"),
            Variant("tiered", {"input": Rate(D(7)), "output": Rate(D(8))}, (("service_tier", "*"),)),
        )
    )
    flex = cost({"input": 1, "output": 1}, of, {"service_tier": "flex"})
    assert [(line.rate, line.note, line.source) for line in flex.lines] == [
        (1, "flex", "flex page"),
        (8, "tiered", "a page"),
    ]
    assert flex.notes == ()
    assert cost({"input": 1}, of, {"service_tier": "gold"}).lines[0].rate == 7
    assert cost({"input": 1}, of, {"service_tier": "gold"}).notes == ()
    for nothing in (None, {}, {"service_tier": ""}, {"service_tier": None}, {"other": "flex"}):
        assert cost({"input": 1}, of, nothing).lines[0].rate == D("2.50")


def test_a_tier_without_a_rate_of_its_own_is_remarked():
    assert cost({"input": 1}, context={"speed": "fast", "service_tier": "gold"}).notes == (
        "no rate of its own for service_tier gold: standard rates used",
        "no rate of its own for speed fast: standard rates used",
    )
    for plain in ("", "default", "standard", "auto", "on_demand", None):
        assert cost({"input": 1}, context={"service_tier": plain}).notes == ()
    narrow = card(variants=(Variant("v", {"input": Rate(D(1))}, (("service_tier", "flex"), ("region", "eu"))),))
    assert cost({"input": 1}, narrow, {"service_tier": "flex", "region": "eu"}).notes == ()
    assert cost({"input": 1}, narrow, {"service_tier": "flex", "region": "us"}).notes != ()
    assert cost({"input": 1}, context={"region": "eu"}).notes == ()
    half = card(multipliers=(Multiplier("batch", D("0.5"), (("processing", "batch"),)),))
    assert cost({"input": 1}, half, {"processing": "batch"}).notes == ()


def test_multipliers_touch_tokens_unless_told_otherwise():
    of = card(
        {"input": Rate(D(2)), "fee:search": Rate(D("0.01"), 1), "output": Rate(D(4))},
        variants=(Variant("us rates", {"output": Rate(D(5))}, (("speed", "fast"),)),),
        multipliers=(
            Multiplier("regional", D("1.1"), (("region", "us"),), unless=("us rates",)),
            Multiplier("batch", D("0.5"), (("processing", "batch"),)),
            Multiplier("surcharge", D(3), (("region", "us"),), kinds=("fee:search",)),
        ),
    )
    found = cost(
        {"input": 1, "output": 1, "fee:search": 1}, of, {"region": "us", "processing": "batch", "speed": "fast"}
    )
    assert [line.multipliers for line in found.lines] == [
        (("regional", D("1.1")), ("batch", D("0.5"))), (("batch", D("0.5")),), (("surcharge", D(3)),),
    ]  # fmt: skip
    assert [line.pico for line in found.lines] == [1_100_000, 2_500_000, 30_000_000_000]


def test_fallbacks_are_listed_chains():
    of = card(
        {"output": Rate(D(10)), "cache_write": Rate(D(3))},
        variants=(Variant("flex", {"output": Rate(D(5))}, (("service_tier", "flex"),)),),
        fallbacks={
            "reasoning": "output", "citation": "reasoning", "cache_write_5m": "cache_write", "cache_write": "output",
            "input": "cache_read", "cache_read": "input", "audio_input": "audio_input",
        },
    )  # fmt: skip
    counts = {"reasoning": 1, "citation": 1, "cache_write_5m": 1, "cache_write": 1}
    lines = {line.kind: line for line in cost(counts, of).lines}
    assert [lines[kind].rate for kind in counts] == [10, 10, 3, 3]
    assert [lines[kind].note for kind in counts] == [
        "at the rate of output", "at the rate of output", "at the rate of cache_write", "",
    ]  # fmt: skip
    assert cost({"reasoning": 1}, of, {"service_tier": "flex"}).lines[0].note == "flex; at the rate of output"
    assert cost({"input": 1, "cache_read": 1, "audio_input": 1}, of).unpriced == ("input", "cache_read", "audio_input")


def test_minimums_and_steps():
    of = card(
        {
            "milliseconds_input": Rate(D("0.36"), 3_600_000, minimum=10_000, step=1000),
            "requests": Rate(D(1), 1, minimum=5),
        }
    )
    short = cost({"milliseconds_input": 1}, of).lines[0]
    assert (short.quantity, short.pico, short.note) == (10_000, 10**9, "used 1, billed 10,000")
    assert cost({"milliseconds_input": 10_001}, of).lines[0].quantity == 11_000
    assert cost({"milliseconds_input": 12_000}, of).lines[0].note == ""
    assert cost({"requests": 2}, of).amount == Money.usd(5)
    assert cost({}, of).amount == Money()


@pytest.mark.parametrize(
    ("mode", "used", "quantity", "dollars"),
    [
        ("graduated", 0, 100, 300), ("graduated", 0, 101, 302), ("graduated", 100, 1, 2), ("graduated", 99, 2, 5),
        ("graduated", 0, 250, 550), ("graduated", 500, 10, 10), ("volume", 0, 100, 300), ("volume", 0, 101, 202),
        ("volume", 99, 1, 3), ("volume", 100, 1, 2), ("volume", 199, 2, 2), ("volume", 0, 1, 3),
    ],
)  # fmt: skip
def test_brackets(mode, used, quantity, dollars):
    of = card({"requests": Rate(D(3), 1, brackets=Brackets(mode, "month", ((0, D(3)), (100, D(2)), (200, D(1)))))})
    line = cost({"requests": quantity}, of, volume={"requests": used}).lines[0]
    assert line.amount == Money.usd(dollars)
    assert line.note == f"{mode} over the month: {used:,} requests used before"


def test_brackets_take_multipliers_and_admit_what_they_do_not_know():
    rate = Rate(D(3), 1000, brackets=Brackets("graduated", "month", ((0, D(3)),)))
    of = card({"input": rate}, multipliers=(Multiplier("batch", D("0.5"), (("processing", "batch"),)),))
    line = cost({"input": 1000}, of, {"processing": "batch"}).lines[0]
    assert line.amount == Money.usd("1.5")
    assert line.note.startswith(
        "the period's volume is unknown: priced as its first use; graduated over the month: 0 tokens"
    )


def test_a_flat_plan_includes_its_allowance():
    plan = FlatPlan("Pro", D(20), "month", {"input": 100})
    of = card({"input": Rate(D(1), 1), "output": Rate(D(1), 1), "cache_read": Rate(D(1), 1, minimum=3)}, plan=plan)
    first = cost({"input": 60, "output": 2, "cache_read": 1}, of, volume={})
    assert [(line.pico, line.note) for line in first.lines] == [
        (0, "60 included in Pro"), (3 * 10**12, "used 1, billed 3"), (2 * 10**12, ""),
    ]  # fmt: skip
    assert cost({"input": 60}, of, volume={"input": 60}).lines[0].amount == Money.usd(20)
    assert cost({"input": 60}, of, volume={"input": 500}).lines[0].amount == Money.usd(60)
    assert (
        cost({"input": 60}, of).lines[0].note
        == "the period's volume is unknown: priced as its first use; 60 included in Pro"
    )
    assert plan_fee(of) == Money.usd(20)
    assert plan_fee(card()) is None


def test_windows_belong_to_the_weekday_on_which_they_begin():
    night = Window(22 * 60, 6 * 60, (5,), "Europe/Berlin")
    of = card(variants=(Variant("night", {"input": Rate(D(1))}, windows=(night, Window(0, 1, (7,)))),))
    friday = datetime(2026, 11, 20, 21, tzinfo=UTC)  # 22:00 in Berlin
    for hours, rate in ((-0.001, D("2.50")), (0, 1), (7.99, 1), (8, D("2.50")), (24, D("2.50"))):
        assert cost({"input": 1}, of, at=friday + timedelta(hours=hours)).lines[0].rate == rate
    assert cost({"input": 1}, of, at=datetime(2026, 11, 22, 0, 0, 59, tzinfo=UTC)).lines[0].rate == 1
    assert of.windowed == of.variants
    assert card(variants=(Variant("x", {}),)).windowed == ()


@pytest.mark.parametrize(
    ("window", "open_at", "shut_at"),
    [
        (Window(0, 1440), ["2026-11-21T00:00", "2026-11-21T23:59"], []),
        (Window(600, 600, (6,)), ["2026-11-21T10:00", "2026-11-22T09:59"], ["2026-11-21T09:59", "2026-11-22T10:00"]),
        (Window(600, 660, (6,)), ["2026-11-21T10:00", "2026-11-21T10:59"], ["2026-11-21T09:59", "2026-11-21T11:00", "2026-11-22T10:30"]),
        (Window(1380, 0, (7,)), ["2026-11-22T23:00"], ["2026-11-23T00:00", "2026-11-21T23:30", "2026-11-22T22:59"]),
        (Window(1380, 60, (7,)), ["2026-11-23T00:59"], ["2026-11-22T00:30", "2026-11-23T01:00"]),
        (Window(1380, 60, (1,)), ["2026-11-24T00:00"], ["2026-11-23T00:30"]),
    ],
)  # fmt: skip
def test_windows(window, open_at, shut_at):
    assert [window.active(datetime.fromisoformat(text).replace(tzinfo=UTC)) for text in open_at] == [True] * len(
        open_at
    )
    assert [window.active(datetime.fromisoformat(text).replace(tzinfo=UTC)) for text in shut_at] == [False] * len(
        shut_at
    )


def test_an_instant_without_a_time_zone_is_refused():
    with pytest.raises(InputError, match="no time zone") as caught:
        cost({"input": 1}, at=datetime(2026, 1, 1))
    assert caught.value.money
    assert caught.value.todo
    with pytest.raises(InputError):
        card().covers(datetime(2026, 1, 1))
    with pytest.raises(InputError):
        plan_for(card(), 1, datetime(2026, 1, 1), None)


def test_plans_are_kept_but_not_without_end():
    of = card()
    kept = plan_for(of, 5, AT, {"service_tier": "a"})
    assert plan_for(of, 6, AT, {"service_tier": "a", "elsewhere": "b"}) is kept
    for number in range(3 * MAX_PLANS):
        plan_for(of, 5, AT, {"service_tier": str(number)})
        assert len(of.compiled) <= MAX_PLANS
    kinds = [f"fee:{number}" for number in range(2 * MAX_PLANS)]
    of = card({kind: Rate(D(1), 1) for kind in kinds})
    for number in range(2 * MAX_PLANS):
        assert cost({"fee:0": 1, kinds[number]: 2}, of).amount == Money.usd(3 if number else 2)
        assert len(plan_for(of, 0, AT, None).forms) <= MAX_PLANS
    of = card()
    for number in range(MAX_PLANS):
        plan_for(of, 5, AT, {"service_tier": str(number)})
    assert len(of.compiled) == MAX_PLANS == 256


def test_only_the_prompt_decides_a_cliff():
    of = card({"input": Rate(D(1), cliffs=(Cliff(100, D(3)),)), "output": Rate(D(1))})
    for tokens, usd in ((100, 1), (101, 3)):
        assert cost({"input": tokens, "output": 500}, of).lines[0].rate == usd
        assert cost({"input": tokens}, of).lines[0].rate == usd


def test_names_dates_and_bases_of_cards():
    since, until = datetime(2024, 10, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    dated = card(valid_from=since, valid_to=until, catalogue="abc", status="user")
    assert dated.id == "acme/m@2024-10-01"
    assert card(valid_from=since + timedelta(hours=16, minutes=15)).id == "acme/m@2024-10-01T16:15"
    assert card(valid_from=datetime.fromisoformat("2024-10-01T02:00+02:00")).id == "acme/m@2024-10-01"
    assert dated.basis == "user"
    found = cost({"input": 1}, dated)
    assert (found.basis, found.rate_ids, found.catalogue) == ("user", ("acme/m@2024-10-01",), "abc")
    tick = timedelta(microseconds=1)
    assert [dated.covers(at) for at in (since - tick, since, until - tick, until)] == [False, True, True, False]
    assert card().covers(since)
    assert card().dimensions == ("processing", "service_tier", "speed")
    assert card().thresholds == ()


def test_cards_on_which_sources_disagree_say_so():
    assert cost({"input": 1}, card(status="conflict")).notes == ("sources disagree on acme/m",)
    assert cost({"input": 1}, card(status="conflict", note="1 or 2")).notes == ("sources disagree on acme/m: 1 or 2",)


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rate(D(-1)),
        lambda: Rate(D("NaN")),
        lambda: Rate(D("Infinity")),
        lambda: Rate(D(1000000001)),
        lambda: Rate(D("1e-60")),
        lambda: Rate(D(1), 0),
        lambda: Rate(D(1), step=0),
        lambda: Rate(D(1), minimum=-1),
        lambda: Rate(D(1), cliffs=(Cliff(1, D(-1)),)),
        lambda: Rate(D(1), cliffs=(Cliff(1, D(1)), Cliff(1, D(2)))),
        lambda: Rate(D(1), cliffs=(Cliff(1, D(1)), Cliff(2, D(2), inclusive=True))),
        lambda: Rate(D(1), cliffs=(Cliff(0, D(1), inclusive=True),)),
        lambda: Rate(D(1), cliffs=(Cliff(1, D(1)),), brackets=Brackets("volume", "month", ((0, D(1)),))),
        lambda: Brackets("sideways", "month", ((0, D(1)),)),
        lambda: Brackets("volume", "month", ()),
        lambda: Brackets("volume", "month", ((1, D(1)),)),
        lambda: Brackets("volume", "month", ((0, D(1)), (5, D(1)), (5, D(2)))),
        lambda: Brackets("volume", "month", ((0, D(1)), (6, D(1)), (5, D(2)))),
        lambda: Brackets("volume", "month", ((0, D(-1)),)),
        lambda: Window(-1, 5),
        lambda: Window(1440, 5),
        lambda: Window(0, 1441),
        lambda: Window(0, -1),
        lambda: Window(0, 5, ()),
        lambda: Window(0, 5, (0,)),
        lambda: Window(0, 5, (7, 8)),
        lambda: Multiplier("x", D(-1), ()),
        lambda: FlatPlan("x", D(-1), "month", {}),
        lambda: FlatPlan("x", D(1), "month", {"input": -1}),
        lambda: card({"token": Rate(D(1))}),
        lambda: card(variants=(Variant("v", {"token": Rate(D(1))}),)),
        lambda: card(fallbacks={"token": "input"}),
        lambda: card(fallbacks={"input": "token"}),
        lambda: card(multipliers=(Multiplier("x", D(1), (), ("token",)),)),
        lambda: card(plan=FlatPlan("x", D(1), "month", {"token": 1})),
        lambda: card(valid_from=datetime(2026, 1, 1)),
        lambda: card(valid_to=datetime(2026, 1, 1)),
        lambda: card(valid_from=NOON, valid_to=NOON),
    ],
)
def test_absurd_cards_are_refused(make):
    with pytest.raises(CatalogError):
        make()


def test_the_edges_of_what_cards_may_say():
    assert Rate(D(1_000_000_000), 1, (Cliff(0, D(0)),)).at_size(1) == 0
    assert Rate(D("1e-59")).minimum == 0
    assert Rate(D(1)).per == 1_000_000
    assert Rate(D(1), cliffs=(Cliff(1, D(1), inclusive=True),)).at_size(0) == 1
    assert Window(1439, 1440).active(datetime(2026, 1, 1, 23, 59, tzinfo=UTC))
    assert FlatPlan("x", D(0), "month", {"input": 0}).fee == 0
    assert card(valid_from=NOON, valid_to=NOON + timedelta(microseconds=1))
    assert Multiplier("x", D(0), ()).kinds == ()


def test_a_stated_cost_is_the_bill_and_ours_stands_beside_it():
    ours = cost({"input": 1000})
    same = reported(ours, Money.usd("0.0025"))
    assert (same.amount, same.listed, same.basis, same.notes) == (Money.usd("0.0025"), ours.amount, "reported", ())
    assert same.lines == ours.lines
    more = reported(ours, Money.usd("0.003"))
    assert (more.amount, more.listed) == (Money.usd("0.003"), Money.usd("0.0025"))
    assert len(more.notes) == 1
    assert "$0.003" in more.notes[0]
    assert "$0.0025" in more.notes[0]
    assert more.to_json()["listed"] == {"usd": "0.0025"}
    unpriced = reported(cost({"images": 1}), Money.usd("0.003"))
    assert (unpriced.amount, unpriced.listed) == (Money.usd("0.003"), None)
    alone = reported(None, Money.usd("0.003"))
    assert (alone.amount, alone.listed, alone.lines, alone.basis) == (Money.usd("0.003"), None, (), "reported")
    assert alone.notes == ("stated by the provider; no rate of ours to check it",)
    assert str(alone).startswith("total")


def test_nothing_changes_once_made():
    window, cliff = Window(0, 5), Cliff(1, D(1))
    brackets, factor = Brackets("volume", "month", ((0, D(1)),)), Multiplier("x", D(1), ())
    plan, variant = FlatPlan("x", D(1), "month", {}), Variant("v", {})
    made = (window, cliff, brackets, factor, plan, variant, Rate(D(1)), card(), plan_for(card(), 1, AT, None))
    for thing in made:
        with pytest.raises(AttributeError):
            setattr(thing, thing.__struct_fields__[0], None)
