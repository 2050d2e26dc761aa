"""The error tree. Everything tallystick raises on purpose hangs below `TallyError`.

    TallyError                       exit code 1
    ├── InputError (ValueError)      2   what was handed in cannot be read or contradicts itself
    │   ├── UsageError                   a usage object: wrong shape, negative, absurd, parts above the whole
    │   │   └── UnsupportedApi           a payload that is known, but has no reader yet
    │   ├── TextError                    a text or file that cannot be counted
    │   └── ConfigError                  a configuration file, an option, an environment variable
    ├── UnpricedError (LookupError)  3   no rate applies
    │   ├── UnknownModelError            the model is in no catalogue; carries the three nearest names
    │   └── MissingRateError             the model is known, a rate for this kind or instant is not
    ├── IncompleteError              4   a result exists but leaves something out
    ├── CatalogError                 1   the catalogue cannot be built or read
    ├── BudgetExceeded               5   a budget refused the call
    └── LedgerError                  6   the ledger cannot do its work
        ├── LedgerUnavailable            locked, read-only, disk full, missing
        ├── LedgerCorrupt                the file is not a ledger, or is damaged
        └── ConflictError                one id, two different payloads

Each error says three things: what happened, what it means for the money, and what to do next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar


class TallyError(Exception):
    """Root of the tree.

    `what` says what happened, `money` what it means for the money, `todo` what to do next; the message joins them.
    `exit_code` is what the command line returns for it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, money: str = "", todo: str = "") -> None:
        self.what = what
        self.money = money
        self.todo = todo
        super().__init__(" ".join(part for part in (what, money, todo) if part))


class InputError(TallyError, ValueError):
    """What was handed in cannot be read or contradicts itself; nothing was counted, priced or written."""

    exit_code = 2


class UsageError(InputError):
    """A usage object has the wrong shape, a negative or absurd count, or parts larger than their whole."""


class UnsupportedApi(UsageError):
    """The payload's format is known, but there is no reader for it yet; `api` names it. Report it as unsupported."""

    def __init__(self, api: str, what: str) -> None:
        self.api = api
        super().__init__(what, money="The cost of such a call is unknown, not zero.")


class TextError(InputError):
    """A text or file that cannot be counted: missing, unreadable, a directory."""


class ConfigError(InputError):
    """A configuration file, option or environment variable that does not make sense."""


class UnpricedError(TallyError, LookupError):
    """No rate applies, so the cost is unknown. It is never taken as zero."""

    exit_code = 3


class UnknownModelError(UnpricedError):
    """The model is in no catalogue. `nearest` holds up to three known names that look like it.

    A function in place of the names is called when somebody looks at them: most errors of this kind only say that a
    call has no price, and finding the names takes longer than everything else about it.
    """

    nearest: tuple[str, ...]

    def __init__(
        self, model: str, nearest: tuple[str, ...] | Callable[[], tuple[str, ...]] = (), *, provider: str | None = None
    ) -> None:
        self.model = model
        self.provider = provider
        self.money = "Its cost is unknown, not zero."
        self.todo = (
            f"Check the name, or set a rate: tally rates set {model} --input USD --output USD "
            "(dollars per million tokens)."
        )
        self._find = nearest
        Exception.__init__(self, model)

    def __getattr__(self, name: str) -> object:
        """`nearest` and `what`, made when they are asked for."""
        if name == "nearest":
            self.nearest = self._find if isinstance(self._find, tuple) else self._find()
            return self.nearest
        if name == "what":
            where = f" at provider {self.provider!r}" if self.provider else ""
            names = f" Nearest names: {', '.join(self.nearest)}." if self.nearest else ""
            self.what = f"Unknown model {self.model!r}{where}.{names}"
            return self.what
        raise AttributeError(name)

    def __str__(self) -> str:
        """What happened, what it means for the money, what to do."""
        return f"{self.what} {self.money} {self.todo}"


class MissingRateError(UnpricedError):
    """The model is known, but no rate covers this kind, tier or instant."""


class IncompleteError(TallyError):
    """A result exists but leaves something out, and says what."""

    exit_code = 4


class CatalogError(TallyError):
    """The rate catalogue cannot be built or read."""


class BudgetExceeded(TallyError):
    """A budget refused the call before it was sent; no counter moved."""

    exit_code = 5


class LedgerError(TallyError):
    """The ledger cannot do its work."""

    exit_code = 6


class LedgerUnavailable(LedgerError):
    """The ledger is locked, read-only, missing, or its disk is full; it is intact."""


class LedgerCorrupt(LedgerError):
    """The file is not a ledger, or it is damaged."""


class ConflictError(LedgerError):
    """One id was written twice with different payloads; the first one stands."""
