"""Values and rules: money, usage, rates, cost, models, tags, periods. No I/O and no clock."""
