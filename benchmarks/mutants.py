"""Do the tests notice? Small seeded faults are put into core/ and wire/, one at a time, and the tests have to fail.

    python benchmarks/mutants.py [--number 200] [--seed 1] [--workers 2] [--goal 95] [--only core]

Each fault is made in a copy of the tree; tests/core and tests/wire are run there, the file's own tests first.
The command fails when fewer than `--goal` percent of the faults are noticed.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("core", "wire")
TIMEOUT = 90

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One change of one file: what it is, and the whole text with it."""

    file: str
    line: int
    what: str
    text: str

    def __str__(self):
        return f"{self.file}:{self.line} {self.what}"


def runtime_nodes(tree):
    """Nodes that do something when the code runs: no annotations, docstrings, imports or decorators."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params", "decorator_list", "type_comment"):
                continue
            children = value if isinstance(value, list) else [value]
            for child in children:
                documentation = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
                if (
                    isinstance(child, ast.AST)
                    and not documentation
                    and not isinstance(child, ast.Import | ast.ImportFrom)
                ):
                    pending.append(child)


def changes(node):
    """The faults that can be put into one node: words for it, and a function that does it to a copy of the node."""
    found = []
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if type(operator) in COMPARISONS:
                other = COMPARISONS[type(operator)]
                found.append(
                    (
                        f"{type(operator).__name__} -> {other.__name__}",
                        lambda n, p=place, o=other: n.ops.__setitem__(p, o()),
                    )
                )
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        found.append((f"{type(node.op).__name__} -> {other.__name__}", lambda n: setattr(n, "op", other())))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        other = ARITHMETIC[type(node.op)]
        found.append((f"{type(node.op).__name__} -> {other.__name__}", lambda n: setattr(n, "op", other())))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        found.append(
            ("not removed", lambda n: setattr(n, "op", ast.UAdd()) or setattr(n, "operand", twice_not(n.operand)))
        )
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        found += [
            (f"{node.value} -> {node.value + step}", lambda n, s=step: setattr(n, "value", n.value + s))
            for step in (1, -1)
        ]
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        found.append((f"{node.value} -> {not node.value}", lambda n: setattr(n, "value", not n.value)))
    elif isinstance(node, ast.Return) and node.value is not None and not is_none(node.value):
        found.append(("returns None", lambda n: setattr(n, "value", ast.Constant(None))))
    elif isinstance(node, ast.IfExp | ast.If):
        found.append(("condition turned", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))))
    elif isinstance(node, ast.Continue):
        found.append(("continue -> break", None))
    elif isinstance(node, ast.Raise):
        found.append(("raise removed", None))
    return found


def twice_not(operand):
    """`+bool(x)` is the truth of x as a number: what `not x` becomes without its `not`."""
    return ast.Call(ast.Name("bool", ast.Load()), [operand], [])


def is_none(node):
    return isinstance(node, ast.Constant) and node.value is None


def faults(file):
    """Every fault that can be put into a file."""
    source = file.read_text()
    tree = ast.parse(source)
    numbered = list(runtime_nodes(tree))
    for number, node in enumerate(numbered):
        for kind, (what, _) in enumerate(changes(node)):
            other = copy.deepcopy(tree)
            target = list(runtime_nodes(other))[number]
            change = changes(target)[kind][1]
            if change is None:
                replacement = ast.Break() if isinstance(target, ast.Continue) else ast.Pass()
                for parent in ast.walk(other):
                    for _, value in ast.iter_fields(parent):
                        if isinstance(value, list) and target in value:
                            value[value.index(target)] = replacement
            else:
                change(target)
            text = ast.unparse(ast.fix_missing_locations(other))
            yield Fault(str(file.relative_to(ROOT)), node.lineno, what, text)


def sites(rooms):
    """How many faults each file offers, without making them."""
    for room in rooms:
        for file in sorted((ROOT / "src/tallystick" / room).glob("*.py")):
            tree = ast.parse(file.read_text())
            yield file, sum(len(changes(node)) for node in runtime_nodes(tree))


def chosen(rooms, number, seed):
    """`number` faults, drawn evenly over all that are possible."""
    offered = [(file, index) for file, count in sites(rooms) for index in range(count)]
    drawn = random.Random(seed).sample(offered, min(number, len(offered)))
    for file in sorted({file for file, _ in drawn}):
        wanted = {index for other, index in drawn if other == file}
        yield from (fault for index, fault in enumerate(faults(file)) if index in wanted)


def copied(folder):
    """A tree of its own for one worker."""
    for name in ("src", "tests", "pyproject.toml", "README.md"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "docs", "gates"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    return folder


def stages(file):
    """Test files, those most likely to notice a fault in `file` first: by name, then by room, then all."""
    room, stem = Path(file).parent.name, Path(file).stem.rstrip("s")
    stem = {"attribution": "tags", "pricing": "price", "rate": "price"}.get(stem, stem)
    tests = {name: sorted((ROOT / "tests" / name).glob("test_*.py")) for name in ROOMS}
    near = [path for path in tests[room] if stem in path.stem]
    groups = (
        near,
        [path for path in tests[room] if path not in near],
        *(tests[name] for name in ROOMS if name != room),
    )
    return [[str(path.relative_to(ROOT)) for path in group] for group in groups if group]


def noticed(tree, fault):
    """Whether the tests fail with the fault in place."""
    path = tree / fault.file
    original = path.read_text()
    path.write_text(fault.text)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    environment = {
        **os.environ,
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tree / "src"),
    }
    try:
        return any(
            subprocess.run(
                [*command, *tests], cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT, check=False
            ).returncode
            for tests in stages(fault.file)
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--goal", type=float, default=95)
    parser.add_argument("--only", choices=ROOMS)
    options = parser.parse_args()
    rooms = (
        [options.only] if options.only else [room for room in ROOMS if list((ROOT / "tests" / room).glob("test_*.py"))]
    )
    began = time.monotonic()
    picked = list(chosen(rooms, options.number, options.seed))
    survivors = []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(options.workers) as pool:
        trees = SimpleQueue()
        for worker in range(options.workers):
            trees.put(copied(Path(place) / str(worker)))
        if noticed_without_fault(Path(place) / "0"):
            raise SystemExit("the tests fail without any fault: nothing can be learnt")

        def attempt(fault):
            tree = trees.get()
            try:
                return fault, noticed(tree, fault)
            finally:
                trees.put(tree)

        for number, (fault, killed) in enumerate(pool.map(attempt, picked), 1):
            print(f"{number:>4}/{len(picked)} {'noticed ' if killed else 'SURVIVED'} {fault}", flush=True)
            if not killed:
                survivors.append(fault)
    share = 100 * (1 - len(survivors) / max(1, len(picked)))
    for fault in survivors:
        print(f"survived: {fault}")
    print(
        f"{len(picked) - len(survivors)} of {len(picked)} faults noticed: {share:.1f} % in {time.monotonic() - began:.0f} s (seed {options.seed})"
    )
    raise SystemExit(share < options.goal)


def noticed_without_fault(tree):
    """Runs the tests once on the untouched copy."""
    file = f"src/tallystick/{ROOMS[0]}/money.py"
    return noticed(tree, Fault(file, 0, "none", (tree / file).read_text()))


if __name__ == "__main__":
    main()
