"""The gateway's own interface for programs: what was spent, budgets, runs, rates, and calls as they happen."""
