"""StreamCounter against a full count: a million prefixes, how many are wrong, and what a delta costs.

    python benchmarks/streamcounter.py [--checks 1000000] [--seed 1]

Texts are seeded mixtures of prose, code, JSON, many scripts, white space and arbitrary Unicode, cut into small pieces.
After every piece the count is compared with a fresh count of the whole text so far.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tokens"))

from tokens_oracle import cut, random_text

from tallystick.tokens.encodings import encoding
from tallystick.tokens.stream import StreamCounter

PROSE = "The quick brown fox, it's said, jumped over 1,234 lazy dogs; nobody (not even Ada) counted them.\n\nAgain: "
CODE = "def total(rows: list[int]) -> int:\n    # sum it up\n    return sum(row['n'] for row in rows)  \n\n\n"


def texts(rng):
    while True:
        kind = rng.random()
        if kind < 0.1:
            yield PROSE * rng.randint(1, 3)
        elif kind < 0.2:
            yield CODE * rng.randint(1, 3)
        else:
            yield random_text(rng, 60)


def check(name, checks, seed):
    made = encoding(name)
    rng = random.Random(seed)
    done = wrong = 0
    for text in texts(rng):
        counter = StreamCounter(made)
        fed = ""
        for delta in cut(rng, text):
            counter.feed(delta)
            fed += delta
            expected = made.count(fed)
            bad = counter.upper < expected or counter.tokens != expected
            wrong += bad
            if bad and wrong <= 5:
                print(f"  wrong: {fed!r}")
            done += 1
        if done >= checks:
            return done, wrong
    return done, wrong


def cost(name, ask_every):
    """CPU microseconds per delta of a long answer, asking for the exact count every so many deltas."""
    made = encoding(name)
    words = (PROSE + CODE) * 200
    deltas = [words[at : at + 4] for at in range(0, len(words), 4)]
    rounds = []
    for _ in range(5):
        counter = StreamCounter(made)
        start = time.process_time()
        for number, delta in enumerate(deltas):
            counter.feed(delta)
            if ask_every and number % ask_every == 0:
                _ = counter.tokens
        assert counter.tokens == made.count(words)
        rounds.append((time.process_time() - start) / len(deltas) * 1e6)
    return sorted(rounds)[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    total = failures = 0
    for name, share in (("o200k_base", 0.45), ("cl100k_base", 0.45), ("r50k_base", 0.1)):
        done, wrong = check(name, int(args.checks * share) + 1, args.seed)
        total, failures = total + done, failures + wrong
        print(f"{name} ({encoding(name).backend}): {done:,} prefix checks, {wrong} wrong")
        for every, label in ((0, "asked once at the end"), (20, "asked every 20 deltas"), (1, "asked at every delta")):
            print(f"  {cost(name, every):.2f} us per delta, {label}")
    print(f"total: {total:,} prefix checks, {failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
