"""The gates of the house: what may import what, how long things may be, and what may not be written."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tallystick"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in FILES}

FLOORS = {
    "errors": 1,
    "core": 2, "tokens": 2,
    "catalog": 3, "ledger": 3, "wire": 3, "config": 3,
    "metering": 4, "insight": 4, "defaults": 4,
    "capture": 5, "gateway": 5, "dashboard": 5, "simulator": 5, "front": 5,
    "": 5, "cli": 6,
}  # fmt: skip
"""Rooms and the single files beside them. The front door (`front.py` and the package's `__init__`, here "") stands with
the surfaces; only the command line may import it. `__init__` lends its names to every room below it."""

SURFACES = {room for room, floor in FLOORS.items() if floor == 5 and room}
MOUNTS = {"gateway.app"}
"""Files on the surfaces' floor that put other surfaces together."""

BROAD = {
    # file under src/tallystick: how many broad excepts it may have, and why
    "metering/callmeter.py": (
        7,
        "promise 6: ask, outgoing, answered, feed, close, settle, update; counted in meter.faults",
    ),
    "metering/meter.py": (1, "promise 6: a request we cannot read is sent all the same; counted in meter.faults"),
    "tokens/encodings.py": (4, "tiktoken panics with a BaseException on odd texts; the next backend counts instead"),
}
"""Where `except Exception` may stand, each with its number and its reason; promise 6 is the only good one."""

MODEL_NAME = re.compile(
    r"\b(gpt-\d|chatgpt-|claude-(?!code|dev)|gemini-\d|gemma-|llama-?\d|mistral-(small|medium|large)|mixtral-|deepseek-(chat|reasoner|v\d|r\d)"
    r"|grok-\d|command-[ar]\b|qwen\d?-|sonar-|text-embedding-|whisper-|o[1345]-(mini|pro|preview))",
)
EXAMPLE_MODELS = {"cli": r"gpt-4o|gpt-5|claude-sonnet-5"}
"""The command line's examples and its default may name a model."""

FORBIDDEN = re.compile(r"\b(pUSD|trackers?|quotas?|charge-?backs?|cost maps?)\b", re.IGNORECASE)
WHOLE_HOUSE_LIMITS = {"function": 70, "file": 500, "positional": 6}


def room(module):
    """`tallystick.core.money` -> `core`; `tallystick` -> ``."""
    return ".".join(module.split(".")[1:2])


def name_of(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def imports(file):
    """Modules of ours that a file imports anywhere in it, under TYPE_CHECKING too, with line numbers."""
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tallystick":
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [node.module])]
                )
            if base.split(".")[0] == "tallystick":
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    yield (whole if whole in MODULES else base), node.lineno


def strings(file):
    """Texts in a file that are not docstrings."""
    documentation = set()
    for node in ast.walk(TREES[file]):
        for body in (getattr(node, "body", None),):
            if not isinstance(body, list):
                continue
            for statement in body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    documentation.add(statement.value)
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value, node.lineno


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def place(file, line):
    return f"{file.relative_to(ROOT)}:{line}"


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} <= set(FLOORS)


def test_imports_point_down():
    wrong = []
    for name, file in MODULES.items():
        here = room(name)
        for target, line in imports(file):
            there = room(target)
            up = FLOORS[there] > FLOORS[here]
            sideways = here != there and {here, there} <= SURFACES and name.removeprefix("tallystick.") not in MOUNTS
            door = there in ("", "front") and here not in ("", "front", "cli")
            if up or sideways or door:
                wrong.append(f"{place(file, line)} imports {target}")
    assert wrong == []


def test_no_import_cycles():
    arrows = {name: {target for target, _ in imports(file)} - {name} for name, file in MODULES.items()}
    done, cycles = set(), []

    def walk(name, path):
        if name in path:
            cycles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(arrows.get(name, ())):
                walk(target, [*path, name])
            done.add(name)

    for name in sorted(arrows):
        walk(name, [])
    assert cycles == []


def test_functions_and_files_are_short():
    long = []
    for file, tree in TREES.items():
        length = len(file.read_text().splitlines())
        if length > WHOLE_HOUSE_LIMITS["file"]:
            long.append(f"{place(file, 1)} has {length} lines")
        for function in functions(tree):
            body = function.end_lineno - function.body[0].lineno + 1
            if body > WHOLE_HOUSE_LIMITS["function"]:
                long.append(f"{place(file, function.lineno)} {function.name} has {body} lines")
    assert long == []


def test_few_positional_parameters():
    wide = []
    for file, tree in TREES.items():
        for function in functions(tree):
            given = [*function.args.posonlyargs, *function.args.args]
            names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
            # A command's parameters are its options: click hands them over by name.
            commands = [ast.unparse(decorator) for decorator in function.decorator_list]
            if any(".command" in text or "option" in text or "argument" in text for text in commands):
                continue
            if len(names) > WHOLE_HOUSE_LIMITS["positional"]:
                wide.append(f"{place(file, function.lineno)} {function.name} takes {len(names)}")
    assert wide == []


def test_no_global_statements():
    assert [
        place(file, node.lineno)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ] == []


def is_broad(handler):
    """Whether a handler may swallow anything; one that cleans up and always raises again does not."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    names = ast.unparse(handler.type) if handler.type else "BaseException"
    return re.search(r"\b(Exception|BaseException)\b", names) is not None


def test_broad_excepts_are_listed_with_their_reason():
    found = {}
    for file, tree in TREES.items():
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and is_broad(node)]
        if lines:
            found[str(file.relative_to(PACKAGE))] = len(lines)
    assert found == {name: number for name, (number, _) in BROAD.items()}
    assert all(len(reason) > 20 for _, reason in BROAD.values())


def test_every_public_name_says_what_it_is():
    silent = []
    for file, tree in TREES.items():
        if not ast.get_docstring(tree):
            silent.append(place(file, 1))
        for owner in (
            tree,
            *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")),
        ):
            silent += [
                f"{place(file, node.lineno)} {node.name}"
                for node in owner.body
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
                and not any(
                    "overload" in ast.unparse(decorator) or ".setter" in ast.unparse(decorator)
                    for decorator in node.decorator_list
                )
            ]
    assert silent == []


def test_no_model_name_in_code():
    named = []
    for file in FILES:
        allowed = EXAMPLE_MODELS.get(room(name_of(file)), r"(?!)")
        for text, line in strings(file):
            rest = re.sub(allowed, "", text)
            if MODEL_NAME.search(rest):
                named.append(f"{place(file, line)} {text[:60]!r}")
    assert named == []


def test_words_that_people_should_not_see():
    # Texts with a space in them are shown to somebody; the rest are keys of formats that others define.
    seen = [
        f"{place(file, line)} {text[:60]!r}"
        for file in FILES
        for text, line in strings(file)
        if " " in text and FORBIDDEN.search(text)
    ]
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if page.name == "CONTRIBUTING.md":
            continue
        seen += [
            f"{place(page, number)} {line.strip()[:60]!r}"
            for number, line in enumerate(page.read_text().splitlines(), 1)
            if FORBIDDEN.search(line)
        ]
    assert seen == []


def test_no_coverage_pragmas():
    marked = [place(file, 1) for file in FILES if re.search(r"#\s*pragma:?\s*no", file.read_text(), re.IGNORECASE)]
    assert marked == []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert settings["report"]["fail_under"] == 100
    assert settings["run"]["branch"] is True
    assert settings["run"]["source"] == ["tallystick.core", "tallystick.wire"]
    assert "omit" not in settings["run"]
    assert settings["report"]["exclude_lines"] == []


def test_each_ignored_rule_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    rules = re.findall(r'^    "[A-Z]+\d*",.*$', text[text.index("[tool.ruff.lint]") :], re.MULTILINE)
    assert len(rules) > 20
    assert [rule for rule in rules if not re.search(r"#\s+\S.{6,}", rule)] == []
    settings = tomllib.loads(text)["tool"]["ruff"]["lint"]
    assert settings["select"] == ["ALL"]
    listed = len(settings["ignore"]) + sum(map(len, settings["per-file-ignores"].values()))
    assert listed == len(rules)


def test_each_exception_in_the_code_is_for_named_rules():
    bare = [
        place(file, number)
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"#\s*(noqa(?!: [A-Z])|type: ignore(?!\[))", line)
    ]
    assert bare == []


def test_importing_the_package_is_cheap():
    count = "import sys; before = set(sys.modules); import tallystick; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = done.stdout.split()
    assert "tallystick" in loaded
    assert len(loaded) <= 100
    standard = set(sys.stdlib_module_names) | {"tallystick"}
    assert {name.split(".")[0] for name in loaded} - standard == set()


def test_every_exported_name_exists():
    import tallystick

    assert sorted(tallystick.__all__) == list(tallystick.__all__)
    for name in tallystick.__all__:
        assert getattr(tallystick, name) is not None
    assert set(tallystick.__all__) <= set(dir(tallystick))
    with pytest.raises(AttributeError):
        _ = tallystick.no_such_name


@pytest.mark.parametrize("name", ["constraints.txt"])
def test_pins_are_names_and_versions_only(name):
    lines = (ROOT / name).read_text().splitlines()
    assert lines == sorted(lines, key=lambda line: line.lower().replace("_", "-").partition("==")[0])
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
