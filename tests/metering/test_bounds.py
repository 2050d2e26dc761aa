"""Learned bounds keep their coverage, also when the lengths of answers drift."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import InputError
from tallystick.metering.bounds import ENOUGH, AdaptiveQuantile


def steady(draw, _place):
    return int(draw.lognormvariate(5, 0.7))


def growing(draw, place):
    return int(draw.lognormvariate(5 + place / 1500, 0.5))


def jumping(draw, place):
    return int(draw.lognormvariate(4 if place < 1500 else 6.5, 0.5))


def shrinking(draw, place):
    return int(draw.lognormvariate(7 - place / 1000, 0.5))


def waving(draw, place):
    return int(draw.lognormvariate(5 + (place // 300) % 2, 0.4))


@pytest.mark.parametrize("shape", [steady, growing, jumping, shrinking, waving])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_coverage_under_drift(shape, seed):
    draw = random.Random(seed)
    quantile = AdaptiveQuantile(0.9, window=500)
    held = []
    for place in range(4000):
        value = shape(draw, place)
        if quantile.bound is not None:
            held.append(value <= quantile.bound)
        quantile.update(value)
    assert 0.88 <= sum(held) / len(held) <= 0.97


def test_a_plain_quantile_would_not_keep_it():
    draw = random.Random(1)
    plain = AdaptiveQuantile(0.9, window=500, step=0)
    held = []
    for place in range(4000):
        value = growing(draw, place)
        if plain.bound is not None:
            held.append(value <= plain.bound)
        plain.update(value)
    assert sum(held) / len(held) < 0.88


@given(st.lists(st.integers(0, 10**6), max_size=120), st.integers(ENOUGH, 60))
def test_the_window_and_the_quantiles(values, window):
    quantile = AdaptiveQuantile(0.9, window=window).extend(values)
    kept = sorted(values[-window:])
    assert quantile.count == len(kept)
    if len(kept) < ENOUGH:
        assert quantile.bound is quantile.quantile(0.5) is None
    else:
        assert kept[0] <= quantile.quantile(0.1) <= quantile.quantile(0.5) <= quantile.quantile(0.9)
        assert quantile.bound >= kept[0]


@pytest.mark.parametrize(("target", "window", "step"), [(0, 100, 0.1), (1, 100, 0.1), (0.9, 5, 0.1), (0.9, 100, 1)])
def test_nonsense_is_refused(target, window, step):
    with pytest.raises(InputError):
        AdaptiveQuantile(target, window, step)
