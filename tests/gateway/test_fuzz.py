"""A short version of `benchmarks/fuzz.py`: damaged requests against the whole gateway."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def test_damaged_requests_never_make_it_fail_or_wait():
    words = [sys.executable, str(SCRIPT), "--requests", "600", "--seed", "11"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.startswith("600 requests in")
    assert "everything agrees" in done.stdout
