import inspect

import pytest

from tallystick import errors
from tallystick.errors import TallyError, UnknownModelError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TallyError)]
CODES = {
    "TallyError": 1, "InputError": 2, "UsageError": 2, "TextError": 2, "ConfigError": 2, "UnpricedError": 3, "UnknownModelError": 3,
    "MissingRateError": 3, "IncompleteError": 4, "CatalogError": 1, "BudgetExceeded": 5, "LedgerError": 6, "LedgerUnavailable": 6,
    "LedgerCorrupt": 6, "ConflictError": 6,
}  # fmt: skip


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_each_error_stands_in_the_drawn_tree_with_its_exit_code(kind):
    assert kind.exit_code == CODES[next(base.__name__ for base in kind.__mro__ if base.__name__ in CODES)]
    assert f" {kind.__name__} " in errors.__doc__ or f" {kind.__name__}\n" in errors.__doc__


def test_the_tree_is_whole():
    assert {kind.__name__ for kind in TREE} >= set(CODES)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in TREE if "__init__" not in vars(kind) or kind is TallyError],
    ids=lambda kind: kind.__name__,
)
def test_each_error_says_what_money_and_todo(kind):
    error = kind("It broke.", money="Nothing was charged.", todo="Mend it.")
    assert (error.what, error.money, error.todo) == ("It broke.", "Nothing was charged.", "Mend it.")
    assert str(error) == "It broke. Nothing was charged. Mend it."
    assert str(kind("It broke.")) == "It broke."
    assert str(kind("It broke.", todo="Mend it.")) == "It broke. Mend it."


def test_errors_are_also_what_python_would_raise():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.UnpricedError, LookupError)


def test_an_unknown_model_names_the_nearest_and_the_way_out():
    error = UnknownModelError("gtp-9", ("gpt-9", "gpt-8"), provider="openai")
    assert (error.model, error.nearest, error.provider) == ("gtp-9", ("gpt-9", "gpt-8"), "openai")
    assert error.what == "Unknown model 'gtp-9' at provider 'openai'. Nearest names: gpt-9, gpt-8."
    assert error.money == "Its cost is unknown, not zero."
    assert "tally rates set gtp-9" in error.todo
    assert UnknownModelError("x").what == "Unknown model 'x'."
    assert UnknownModelError("x").nearest == ()
