import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.usage import (
    INPUT_KINDS,
    KINDS,
    MAX_COUNT,
    OTHER_UNITS,
    OUTPUT_KINDS,
    TOKEN_KINDS,
    Usage,
    is_kind,
    unit_of,
    units_of,
)
from tallystick.errors import UsageError

counts = st.dictionaries(st.sampled_from([*KINDS, "fee:web_search", "fee:a.b-c"]), st.integers(0, 2**51), max_size=8)


def test_kinds_never_overlap():
    assert len(set(KINDS)) == len(KINDS) == len(INPUT_KINDS) + len(OUTPUT_KINDS) + len(OTHER_UNITS)
    assert frozenset(INPUT_KINDS) | frozenset(OUTPUT_KINDS) == TOKEN_KINDS
    assert KINDS[0] == "input"
    assert KINDS.index("output") == len(INPUT_KINDS)


@given(counts)
def test_a_usage_keeps_what_is_not_zero_in_one_order(given_counts):
    usage = Usage(given_counts)
    assert dict(usage) == {kind: count for kind, count in given_counts.items() if count}
    assert usage == Usage(dict(reversed(given_counts.items())))
    assert list(usage) == list(Usage(dict(reversed(given_counts.items()))))
    assert hash(usage) == hash(Usage(dict(reversed(given_counts.items()))))
    known = [kind for kind in usage if kind in KINDS]
    assert known == sorted(known, key=KINDS.index)
    fees = list(usage)[len(known) :]
    assert fees == sorted(fees)
    assert len(usage) == len(dict(usage))
    assert eval(repr(usage).replace("Usage(", "Usage({").replace(")", "})")) == usage


@given(counts, counts)
def test_addition_adds_kind_by_kind(first, second):
    both = Usage(first) + Usage(second)
    assert dict(both) == {
        kind: first.get(kind, 0) + second.get(kind, 0)
        for kind in {*first, *second}
        if first.get(kind, 0) + second.get(kind, 0)
    }
    assert both.tokens == Usage(first).tokens + Usage(second).tokens
    assert both.input_tokens == sum(both.get(kind, 0) for kind in INPUT_KINDS)
    assert both.output_tokens == sum(both.get(kind, 0) for kind in OUTPUT_KINDS)
    assert both.tokens == both.input_tokens + both.output_tokens


def test_named_kinds_and_a_mapping_join():
    assert Usage({"fee:web_search": 2, "input": 1}, output=3) == Usage({"input": 1, "output": 3, "fee:web_search": 2})
    assert Usage() == Usage({}) == Usage(input=0)
    assert Usage(input=1) != {"input": 1}
    assert Usage.trusted({"input": 5})["input"] == 5
    with pytest.raises(KeyError):
        _ = Usage()["input"]
    with pytest.raises(TypeError):
        _ = Usage() + 1


@pytest.mark.parametrize("count", [-1, MAX_COUNT, 1.0, True, None, "5", 10**30])
def test_absurd_counts_are_refused(count):
    with pytest.raises(UsageError, match="count of input"):
        Usage({"input": count})


def test_the_bounds_themselves():
    assert Usage(input=MAX_COUNT - 1).tokens == 2**53 - 1
    with pytest.raises(UsageError):
        _ = Usage(input=MAX_COUNT - 1) + Usage(input=1)


@pytest.mark.parametrize(
    "kind", ["", "Input", "tokens", "fee:", "fee:-a", "fee:A", "fee:a b", "fee:" + "a" * 65, "fee:é", 1, None]
)
def test_unknown_kinds_are_refused(kind):
    with pytest.raises(UsageError, match="not a kind of usage") as caught:
        Usage({kind: 1})
    assert "fee:<name>" in caught.value.todo


@pytest.mark.parametrize("shape", [[("input", 1)], "input", 5])
def test_other_shapes_are_refused(shape):
    with pytest.raises(UsageError, match="mapping"):
        Usage(shape)


@pytest.mark.parametrize("kind", ["input", "fee:a", "fee:9", "fee:web_search.v2-x", "fee:" + "a" * 64, "requests"])
def test_kinds(kind):
    assert is_kind(kind)


@pytest.mark.parametrize(
    ("kind", "unit", "units"),
    [
        ("reasoning", "token", "tokens"),
        ("searches", "search", "searches"),
        ("milliseconds_input", "millisecond", "milliseconds"),
        ("cache_token_hours", "token-hour", "token-hours"),
        ("fee:x", "call", "calls"),
    ],
)
def test_units(kind, unit, units):
    assert (unit_of(kind), units_of(kind)) == (unit, units)
