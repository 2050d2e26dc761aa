"""Makes the scripts of `make bench-budgets` and `make soak` importable, for short runs of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
