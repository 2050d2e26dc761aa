"""Counting: the same tokens as tiktoken, and what the guard and the extra make of its speed.

    python benchmarks/counting.py [--texts 20000] [--rounds 7]

Equality: seeded random strings per encoding through every installed backend against tiktoken's own constructors.
Speed: distinct texts of about 4 KB, so no cache helps; CPU time, interleaved rounds, medians. Cold start: new process.
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "tests" / "tokens"))

from tokens_oracle import NAMES, oracle  # noqa: E402 - needs the path above
from tokens_oracle import texts as odd_texts  # noqa: E402

from tallystick.tokens.encodings import BACKENDS, Encoding  # noqa: E402

SAMPLE = """
the of and to in is that for it as was with be by on not he his but at are this have from which one had an they you
request response token model budget ledger counted exactly provider streaming settlement, however; nevertheless
def return class import self None True int(value) {'key': 42} [index] != == -> https://example.org/path?q=1 3.14159
"""
WORDS = SAMPLE.split()


def plain_texts(number, size=4096, seed=11):
    rng = random.Random(seed)
    made = []
    for _ in range(number):
        parts, length = [], 0
        while length < size:
            word = rng.choice(WORDS) if rng.random() < 0.9 else f"{rng.randrange(10**6):x}"
            parts.append(word + rng.choice((" ", " ", " ", " ", "\n", ", ")))
            length += len(parts[-1])
        made.append("".join(parts)[:size])
    return made


def usable(name):
    """The backends of an encoding that are really there, not replaced."""
    made = {backend: Encoding(name, backend) for backend in BACKENDS}
    return {backend: one for backend, one in made.items() if one.backend == backend}


def equality(number):
    failures = 0
    for name in NAMES:
        truth, made = oracle(name), usable(name)
        wrong = dict.fromkeys(made, 0)
        for text in odd_texts(name, number):
            expected = truth.encode_ordinary(text)
            for backend, one in made.items():
                wrong[backend] += one.encode(text) != expected
        failures += sum(wrong.values())
        print(f"{name}: {number:,} strings, different from tiktoken: {wrong}")
    return failures


def speed(rounds):
    for name in ("o200k_base", "cl100k_base"):
        truth, made = oracle(name), usable(name)
        ways = {"tiktoken bare": lambda text, bare=truth.encode_ordinary: len(bare(text))}
        ways |= {f"ours ({backend})": one.count for backend, one in made.items() if backend != "reference"}
        batches = [plain_texts(300, seed=number) for number in range(rounds)]
        for way in ways.values():
            way(batches[0][0])
        times = {label: [] for label in ways}
        for number, batch in enumerate(batches):
            order = list(ways.items())
            random.Random(number).shuffle(order)
            for label, way in order:
                start = time.process_time()
                for text in batch:
                    way(text)
                times[label].append((time.process_time() - start) / len(batch) * 1e6)
        base = times["tiktoken bare"]
        for label, each in times.items():
            ratio = statistics.median(bare / ours for bare, ours in zip(base, each, strict=True))
            print(f"{name}, 4 KB cold: {label}: {statistics.median(each):.1f} us a text, {ratio:.2f}x")


def cold_start():
    code = """
import sys, time
sys.path.insert(0, {src!r})
start = time.perf_counter()
from tallystick.tokens.encodings import Encoding
made = Encoding("o200k_base", {backend!r})
ready = time.perf_counter()
made.count("a")
print((ready - start) * 1e3, (time.perf_counter() - ready) * 1e3, made.backend)
"""
    for backend in BACKENDS:
        runs = []
        for _ in range(5):
            command = [sys.executable, "-c", code.format(src=str(ROOT / "src"), backend=backend)]
            imported, counted, used = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            runs.append((float(imported), float(counted), used))
        first, second = (statistics.median(run[at] for run in runs) for at in (0, 1))
        print(f"cold start o200k_base {runs[0][2]}: import {first:.0f} ms, first count {second:.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    speed(args.rounds)
    cold_start()
    return 1 if equality(args.texts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
