"""Views: the pages in the order of the navigation."""

from __future__ import annotations

from typing import Final

from tallystick.dashboard.views import budgets, calls, models, now, quality, rates, runs, spend, tokens

VIEWS: Final = (
    now.VIEW,
    spend.VIEW,
    runs.VIEW,
    calls.VIEW,
    tokens.VIEW,
    models.VIEW,
    budgets.VIEW,
    quality.VIEW,
    rates.VIEW,
)
"""Each page once."""
