"""500 seeded draws of model, instant and usage: our cost against the one that genai-prices itself calculates.

Where both differ, a named rule has to explain it, or the card has to say that a person chose it (status conflict or
reviewed). What the rule explains is computed, not typed in.
"""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.models import provider_id
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import UnpricedError

genai_prices = pytest.importorskip("genai_prices")

from genai_prices.data import providers  # noqa: E402 - after the check that it is there

DRAWS = 500
ROUNDING = Decimal("3e-12")
"""Half a picodollar for each of three lines, on both sides."""

BOOK = Catalog.bundled()
MODELS = [(provider.id, model.id) for provider in providers for model in provider.models]


def draw(chance):
    provider, model = chance.choice(MODELS)
    at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(690 * 86400))
    prompt, answer = chance.randrange(1, 400_000), chance.randrange(1, 20_000)
    cached = chance.randrange(prompt) if chance.random() < 0.5 else 0
    return provider, model, at, prompt, cached, answer


def theirs(provider, model, at, prompt, cached, answer):
    """Their calculation, or None where they know the model but match its own id nowhere."""
    usage = genai_prices.Usage(input_tokens=prompt, cache_read_tokens=cached or None, output_tokens=answer)
    try:
        return genai_prices.calc_price(usage, model_ref=model, provider_id=provider, genai_request_timestamp=at)
    except LookupError:
        return None


def find(model, at, provider):
    try:
        return BOOK.find(model, at=at, provider=provider_id(provider))
    except UnpricedError:
        if provider != "google":
            raise
        # Their list of Google holds Vertex's partners too.
        return BOOK.find(model, at=at, provider="vertex")


def verdict(provider, model, at, prompt, cached, answer):
    """`agree`, or the rule that explains the difference; None when nothing does."""
    calculated = theirs(provider, model, at, prompt, cached, answer)
    if calculated is None:
        return "they do not find their own id"
    try:
        found = find(model, at, provider)
    except UnpricedError:
        states_nothing = not str(calculated.model_price) and calculated.total_price == 0
        return "no rate is stated: theirs is zero, ours unknown" if states_nothing else None
    usage = Usage(input=prompt - cached, cache_read=cached, output=answer)

    def cost(one):
        amount = price(one, found.card, at=at, context=found.context).amount
        return None if amount is None else amount.to_decimal()

    ours = cost(usage)
    if ours is not None and abs(ours - calculated.total_price) <= ROUNDING:
        return "agree"
    if ours is None:
        return "a kind without a rate of its own: theirs leaves it out, ours is unknown"
    if found.card.status in ("conflict", "reviewed"):
        return f"the card is {found.card.status}"
    undiscounted = cost(Usage(input=prompt, output=answer))
    lacks = calculated.model_price.cache_read_mtok is None
    if cached and lacks and undiscounted is not None and abs(undiscounted - calculated.total_price) <= ROUNDING:
        return "the second source states a rate for cached tokens that theirs lacks"
    return None


def test_each_difference_has_its_reason(capsys):
    chance = random.Random(20261121)
    draws = [draw(chance) for _ in range(DRAWS)]
    reasons = [verdict(*one) for one in draws]
    with capsys.disabled():
        for reason, number in Counter(reasons).most_common():
            print(f"\n  {number:4} {reason}", end="")
    assert [one for one, reason in zip(draws, reasons, strict=True) if reason is None] == []
    assert reasons.count("agree") > DRAWS * 0.7
