"""What every ledger does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from ledger_samples import NOW, correction, cost, entry

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.pricing import price
from tallystick.core.rates import Rate, RateCard
from tallystick.core.usage import Usage
from tallystick.errors import ConflictError, InputError, LedgerUnavailable
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.query import Query

CARD = RateCard(
    provider="openai",
    model="model-a",
    rates={"input": Rate(Decimal("2.5")), "output": Rate(Decimal("0.1"), per=3)},
    source="a page",
    catalogue="f" * 64,
)


def ids(ledger: Ledger, **fields: object) -> list[str]:
    return [one.call_id for one in ledger.read(Query(**fields))]  # type: ignore[arg-type]


def test_an_entry_comes_back_as_it_went_in(ledger: Ledger) -> None:
    usage = Usage(input=7, output=3, searches=2)
    full = entry(
        usage=usage, cost=price(usage, CARD, at=NOW), attempt_of="call-0", settled_at=NOW + timedelta(seconds=2),
        api="openai.responses", requested_model="model", maker="openai", tier="flex", region="eu",
        reported_cost=Money(2**70), status="cut", http_status=200, stopped_by="budget", owed=False, run_id="run",
        parent_run="parent", step="1", provider_response_id="resp", trace_id="t", span_id="s", latency_us=5, ttft_us=4,
        request_bytes=3, response_bytes=2, hold_id="h", usage_raw='{"a":"ü"}', quality="estimated",
    )  # fmt: skip
    ledger.append([full])
    (back,) = ledger.read()
    assert back.recorded_at is not None
    assert back == entry_like(full, recorded_at=back.recorded_at)
    assert back.to_json() == entry_like(full, recorded_at=back.recorded_at).to_json()


def entry_like(one: object, **fields: object) -> object:
    return type(one)(**{name: getattr(one, name) for name in one.__struct_fields__} | fields)  # type: ignore[attr-defined]


def test_the_same_entry_twice_is_one(ledger: Ledger) -> None:
    assert ledger.append([entry()]).written == 1
    receipt = ledger.append([entry(), entry("call-2"), entry("call-2")], durable=True)
    assert (receipt.written, receipt.known) == (1, 2)
    assert ledger.total()[0].calls == 2


def test_another_content_under_one_id_is_refused_and_nothing_of_that_append_is_written(ledger: Ledger) -> None:
    ledger.append([entry()])
    with pytest.raises(ConflictError, match="first one stands"):
        ledger.append([entry("call-2"), entry(usage=Usage(input=1))])
    assert ids(ledger) == ["call-1"]
    assert next(ledger.read()).usage == Usage(input=1000, output=50)


def test_submit_tells_the_error_in_the_future(ledger: Ledger) -> None:
    assert ledger.submit([entry()]).result(10).written == 1
    assert isinstance(ledger.submit([entry(model="other")]).exception(10), ConflictError)


@pytest.mark.parametrize(
    "bad",
    [entry("x" * 300), entry(usage_raw="x" * 5000), entry(cost=cost(10**23)), entry("ü")],
)
def test_what_cannot_be_kept_is_refused(ledger: Ledger, bad: object) -> None:
    with pytest.raises(InputError):
        ledger.append([bad])  # type: ignore[list-item]
    assert ledger.total()[0].calls == 0


def test_reading_filters_and_orders(ledger: Ledger) -> None:
    ledger.append(
        [
            entry("a", started_at=NOW + timedelta(minutes=1), provider="aws", run_id="r", maker="m"),
            entry("b", model="model-b", status="error", tags=Tags(team="b")),
            entry("c", started_at=NOW - timedelta(minutes=1), quality="estimated", source="log", owed=False),
        ]
    )
    assert ids(ledger) == ["c", "b", "a"]
    assert ids(ledger, newest_first=True, limit=2) == ["a", "b"]
    assert ids(ledger, since=NOW, until=NOW + timedelta(seconds=1)) == ["b"]
    for found, fields in (
        ("a", {"provider": "aws"}), ("a", {"run_id": "r"}), ("a", {"maker": "m"}), ("b", {"model": "model-b"}),
        ("b", {"status": "error"}), ("b", {"tags": Tags(team="b")}), ("c", {"quality": "estimated"}),
        ("c", {"source": "log"}), ("c", {"owed": False}), ("c", {"call_id": "c"}),
    ):  # fmt: skip
        assert ids(ledger, **fields) == [found]  # type: ignore[arg-type]
    assert ids(ledger, run_id="nobody") == []
    assert ids(ledger, limit=0) == []


def test_more_entries_than_a_page(ledger: Ledger) -> None:
    ledger.append([entry(f"{number:04}") for number in range(1201)])
    assert ids(ledger) == [f"{number:04}" for number in range(1201)]
    assert ids(ledger, newest_first=True, limit=700) == [f"{number:04}" for number in range(1200, 500, -1)]


def test_a_total_says_what_it_does_not_know(ledger: Ledger) -> None:
    ledger.append(
        [
            entry("a"), entry("b", cost=None), entry("c", usage=None, quality="unknown", cost=None),
            entry("d", quality="estimated"), entry("e", quality="lower_bound"), entry("f", owed=False),
            entry("g", status="refused", usage=None, quality="unknown", cost=None),
        ]
    )  # fmt: skip
    (total,) = ledger.total()
    assert (total.calls, total.refused, total.unpriced, total.unknown) == (7, 1, 2, 1)
    assert (total.cost, total.not_owed) == (Money.usd("0.0105"), Money.usd("0.0035"))
    assert not total.complete
    assert total.gaps == "2 calls without a price, 1 call of unknown usage, 1 call counted at least, 1 call estimated"


def test_groups_periods_and_missing_tags(ledger: Ledger) -> None:
    ledger.append([entry("a"), entry("b", tags=Tags(user="bob")), entry("c", started_at=NOW - timedelta(days=40))])
    by_team = ledger.total(by=("team",))
    assert [(row.group, row.calls) for row in by_team] == [({"team": "a"}, 2), ({"team": None}, 1)]
    by_user = ledger.total(by=("user",), per=Period("month"))
    assert [(row.group["user"], row.start, row.calls) for row in by_user] == [
        ("ada", datetime(2026, 10, 1, tzinfo=UTC), 1),
        ("ada", datetime(2026, 11, 1, tzinfo=UTC), 1),
        ("bob", datetime(2026, 11, 1, tzinfo=UTC), 1),
    ]
    assert ledger.total(by=("run",))[0].group == {"run": None}
    for bad in (("",), ("model", "model")):
        with pytest.raises(InputError):
            ledger.total(by=bad)
    with pytest.raises(InputError):
        ledger.total(per=Period.parse("24h"))


def test_money_beyond_64_bits(ledger: Ledger) -> None:
    huge = 2**63 + 12_345
    ledger.append([entry(f"{number}", cost=cost(huge)) for number in range(40)])
    for by in ((), ("model",), ("source",), ("status",), ("maker",)):
        assert ledger.total(by=by)[0].cost == Money(40 * huge)
    assert {one.amount for one in ledger.read()} == {Money(huge)}


def test_a_correction_moves_totals_and_keeps_the_past(ledger: Ledger) -> None:
    ledger.append([entry(run_id="r")])
    fix = correction(cost=cost(1).to_json(), usage={"input": 5, "images": 2}, model="model-b", tags={"team": "z"})
    assert ledger.append([fix]).written == 1
    assert ledger.append([fix]).known == 1
    (now,) = ledger.read()
    assert (now.amount, now.usage, now.model, now.tags) == (
        Money(1),
        Usage(input=5, images=2),
        "model-b",
        Tags(team="z"),
    )
    (before,) = ledger.read(Query(as_of=NOW + timedelta(minutes=30)))
    assert (before.amount, before.model) == (Money(3_500_000_000), "model-a")
    assert ids(ledger, as_of=NOW) == []
    for by in ((), ("model",), ("team",), ("run",), ("source",)):
        (total,) = ledger.total(by=by)
        assert (total.cost, total.usage) == (Money(1), Usage(input=5, images=2))
    assert ledger.total(Query(as_of=NOW + timedelta(minutes=30)))[0].cost == Money(3_500_000_000)
    assert ledger.corrections("call-1") == (fix,)


def test_corrections_that_make_no_sense(ledger: Ledger) -> None:
    ledger.append([entry(), correction(owed=False)])
    for bad, words in (
        (correction("nobody", "fix-2", owed=False), "no call nobody"),
        (correction(identity="fix-2", call_id="x"), "not a field"),
        (correction(identity="fix-2", modle="x"), "Did you mean 'model'"),
        (correction(identity="fix-2"), "changes no field"),
        (correction(identity="fix-2", usage=None), "quality 'unknown'"),
        (correction(identity="fix-2", usage={"input": -1}), "-1"),
    ):
        with pytest.raises(InputError, match=words):
            ledger.append([entry("call-2"), bad])
    with pytest.raises(ConflictError):
        ledger.append([correction(owed=True)])
    assert ids(ledger) == ["call-1"]


@pytest.mark.parametrize("order", ["good first", "good last"])
def test_sources_that_saw_one_call_are_joined(ledger: Ledger, order: str) -> None:
    seen = [
        entry("log", source="log", provider_response_id="x"),
        entry("otlp", source="otlp", provider_response_id="x"),
    ]
    good = entry("client", provider_response_id="x", cost=cost(7))
    for one in [good, *seen] if order == "good first" else [*seen, good]:
        receipt = ledger.append([one])
    if order == "good first":
        assert (receipt.written, receipt.joined) == (0, {"otlp": "client"})
    else:
        assert (receipt.written, receipt.joined) == (1, {})
    assert ids(ledger) == ["client"]
    assert sorted(one.call_id for one in ledger.joined("client")) == ["log", "otlp"]
    for by in ((), ("source",), ("user",)):
        (total,) = ledger.total(by=by)
        assert (total.calls, total.cost) == (1, Money(7))


def test_the_same_source_twice_counts_twice_and_is_flagged(ledger: Ledger) -> None:
    receipt = ledger.append([entry("a", provider_response_id="x"), entry("b", provider_response_id="x")])
    assert receipt.repeated == ("b",)
    assert ledger.total()[0].calls == 2
    assert ids(ledger, repeated=True) == ["b"]
    assert ids(ledger, repeated=False) == ["a"]
    ledger.append([entry("c", provider_response_id="x", provider="aws")])
    assert ledger.total()[0].calls == 3


def test_a_better_source_replaces_all_that_stood_for_the_call(ledger: Ledger) -> None:
    logs = [entry(name, source="log", provider_response_id="x") for name in ("a", "b")]
    ledger.append(logs)
    ledger.append([correction("a", cost=cost(9).to_json())])
    ledger.append([entry("c", source="gateway", provider_response_id="x", cost=cost(5))])
    assert ledger.total()[0].cost == Money(5)
    at = next(ledger.read()).recorded_at
    assert at is not None
    assert ids(ledger, as_of=at - timedelta(microseconds=1)) == ["a", "b"]
    ledger.append([correction("a", "fix-2", cost=cost(11).to_json())])
    assert ledger.total()[0].cost == Money(5)


def test_days_follow_the_zone_of_the_ledger(make: Callable[..., Ledger]) -> None:
    # On 25 October 2026 Berlin has 25 hours: midnight is 22:00 UTC before and 23:00 UTC after.
    starts = [datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 22, 59, 59, 999999, tzinfo=UTC)]
    edges = [starts[0] - timedelta(microseconds=1), *starts, starts[1] + timedelta(microseconds=1)]
    with make("Europe/Berlin") as ledger:
        assert ledger.zone == "Europe/Berlin"
        ledger.append([entry(f"{number}", started_at=at) for number, at in enumerate(edges)])
        for by in ((), ("user",), ("source",), ("maker",)):
            rows = ledger.total(by=by, per=Period("day", "Europe/Berlin"))
            assert [row.calls for row in rows] == [1, 2, 1]
            assert rows[1].start == starts[0]
            assert rows[1].end == edges[3]
        query = Query(since=starts[0], until=edges[3])
        assert ledger.total(query)[0].calls == 2
        assert [row.calls for row in ledger.total(per=Period("day"))] == [2, 2]
        assert ledger.verify() == []


def test_filters_that_a_rollup_knows(ledger: Ledger) -> None:
    odd = Usage(input=1, images=3)
    ledger.append(
        [
            entry("a", usage=odd, run_id="r"), entry("b", usage=odd, model="model-b"),
            entry("c", tags=Tags(team="b", user="bob")), entry("d", usage=odd, source="log", tags=Tags()),
        ]
    )  # fmt: skip
    since = NOW - timedelta(hours=1)
    for query, calls, images in (
        (Query(tags=Tags(team="a")), 2, 6),
        (Query(tags=Tags(team="a"), model="model-b"), 1, 3),
        (Query(tags=Tags(user="ada")), 2, 6),
        (Query(tags=Tags(user="nobody")), 0, 0),
        (Query(run_id="r"), 1, 3),
        (Query(run_id="nobody"), 0, 0),
        (Query(since=since, source="log"), 1, 3),
        (Query(since=since, tags=Tags(team="b")), 1, 0),
        (Query(since=since), 4, 9),
        (Query(since=since + timedelta(seconds=1)), 4, 9),
        (Query(until=NOW.replace(hour=0)), 0, 0),
    ):
        (total,) = ledger.total(query)
        assert (total.calls, total.usage.get("images", 0)) == (calls, images)
    assert [row.calls for row in ledger.total(Query(since=since), by=("team",))] == [2, 1, 1]
    assert [row.calls for row in ledger.total(by=("user",))] == [2, 1, 1]


def test_a_day_that_begins_within_a_quarter(make: Callable[..., Ledger]) -> None:
    # Until 1972 Monrovia was 44 minutes 30 seconds behind UTC.
    midnight = datetime(1971, 3, 1, 0, 44, 30, tzinfo=UTC)
    with make("Africa/Monrovia") as ledger:
        ledger.append([entry("a", started_at=midnight - timedelta(seconds=1)), entry("b", started_at=midnight)])
        for by in ((), ("user",), ("maker",)):
            rows = ledger.total(by=by, per=Period("day", "Africa/Monrovia"))
            assert [(row.calls, row.end) for row in rows] == [(1, midnight), (1, midnight + timedelta(days=1))]
        assert ledger.verify() == []


def test_state(ledger: Ledger) -> None:
    assert ledger.state("budgets", "a") is None
    assert ledger.state("budgets", "a", "1") == "1"
    ledger.state("budgets", "b", "2")
    ledger.state("keys", "a", "3")
    assert ledger.states("budgets") == {"a": "1", "b": "2"}
    assert ledger.state("budgets", "a", None) is None
    assert ledger.states("budgets") == {"b": "2"}


def test_a_closed_ledger_says_so(make: Callable[..., Ledger]) -> None:
    ledger = make()
    ledger.append([entry()])
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.append([entry("b")])
    with pytest.raises(LedgerUnavailable, match="closed"):
        list(ledger.read())
