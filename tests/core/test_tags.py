import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.attribution import MAX_LENGTH, MAX_TAGS, Tags
from tallystick.errors import InputError

words = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
pairs = st.dictionaries(words, words, max_size=8)


@given(pairs, pairs)
def test_tags_are_a_sorted_mapping_and_overlay(first, second):
    tags = Tags(first)
    assert dict(tags) == first
    assert list(tags) == sorted(first)
    assert len(tags) == len(first)
    assert tags == Tags(dict(reversed(first.items())))
    assert hash(tags) == hash(Tags(dict(reversed(first.items()))))
    assert dict(tags.overlay(second)) == {**first, **second}
    assert dict(tags.overlay(dict.fromkeys(first))) == {}
    assert eval(repr(tags)) == tags


def test_values_become_text():
    assert dict(Tags({"a": 1}, b=True, c=False, d="x")) == {"a": "1", "b": "true", "c": "false", "d": "x"}
    assert Tags() == Tags({})
    assert Tags(a="b") != {"a": "b"}
    assert Tags(a="b")["a"] == "b"


@pytest.mark.parametrize(
    "value", [None, 1.5, [], b"x", "", "x" * (MAX_LENGTH + 1), "a\nb", "a\x7f", "\x1f", "\x85", "\ud800"]
)
def test_bad_values_are_refused(value):
    with pytest.raises(InputError):
        Tags(a=value)


@pytest.mark.parametrize("name", ["", "x" * (MAX_LENGTH + 1), "a\tb", 5, None])
def test_bad_names_are_refused(name):
    with pytest.raises(InputError):
        Tags({name: "x"})


def test_limits_themselves():
    assert len(Tags({f"n{i}": "x" for i in range(MAX_TAGS)})) == 32
    assert Tags({"n" * MAX_LENGTH: "v" * MAX_LENGTH})
    assert Tags(a=" ~\xa0é")
    with pytest.raises(InputError, match="33 tags are too many"):
        Tags({f"n{i}": "x" for i in range(MAX_TAGS + 1)})
    with pytest.raises(InputError):
        Tags({f"n{i}": "x" for i in range(MAX_TAGS)}).overlay({"one": "more"})


def test_limits_in_numbers():
    assert (MAX_TAGS, MAX_LENGTH) == (32, 256)
