"""Key: a virtual key. Whoever bears it may call through the gateway, with its tags, models and limits; the provider's
own key stays here. The ledger holds what a key may, and of the key itself only a hash."""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.errors import InputError, LedgerError
from tallystick.metering.advisory import KEYS

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

NAMESPACE: Final = KEYS
"""The part of the ledger's state that holds the keys, by their id."""

MARK: Final = "tly_"
"""What every key begins with, so that it is known when it lies where it should not."""

ID_LENGTH: Final = 10
SECRET_BYTES: Final = 32
_HEX: Final = ID_LENGTH // 2
_LENGTH: Final = len(MARK) + ID_LENGTH + 2 * SECRET_BYTES
_NOBODY: Final = "0" * 64

MISS_SECONDS: Final = 1.0
"""How long an unknown id stays unknown before the ledger is asked for it again."""

_MOST_MISSES: Final = 10_000


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual key as the ledger holds it. `tags` are fixed; callers may fill the names in `open`. `models` are those
    it may call, `*` standing for anything (empty: all). `allow_unmetered` lets it use paths whose cost nobody can read.
    `budgets` are those that were made with it."""

    key_id: str
    digest: str
    created_at: datetime
    name: str = ""
    tags: Mapping[str, str] = {}
    open: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    allow_unmetered: bool = False
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_at: datetime | None = None
    budgets: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The public beginning of the key, which finds it."""
        return MARK + self.key_id

    def fixed(self) -> Tags:
        """The tags of every call made with it; `key` is its id."""
        return Tags({**self.tags, "key": self.key_id})

    def allows(self, model: str | None) -> bool:
        """Whether it may call a model."""
        return not self.models or any(fnmatch.fnmatchcase(model or "", pattern) for pattern in self.models)

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "valid"


def mint(random: Callable[[int], bytes], key_id: str | None = None) -> tuple[str, str, str]:
    """A new key: its id (or the given one), the whole key to be shown once, and its hash."""
    key_id = key_id or random(_HEX).hex()
    token = f"{MARK}{key_id}{random(SECRET_BYTES).hex()}"
    return key_id, token, _digest(token)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def save(ledger: Ledger, key: Key) -> None:
    """Writes a key into the ledger. Raises LedgerError."""
    ledger.state(NAMESPACE, key.key_id, msgspec.json.encode(key).decode())


def saved(ledger: Ledger) -> list[Key]:
    """All keys of a ledger, oldest first; what cannot be read as one is left out. Raises LedgerError."""
    found = [_read(text) for text in ledger.states(NAMESPACE).values()]
    return sorted([key for key in found if key is not None], key=lambda key: (key.created_at, key.key_id))


def find(ledger: Ledger, named: str) -> Key:
    """A key by its id, its prefix or its name. Raises InputError."""
    wanted = named.removeprefix(MARK)[:ID_LENGTH] if named.startswith(MARK) else named
    keys = saved(ledger)
    found = [key for key in keys if key.key_id == wanted] or [key for key in keys if key.name and key.name == named]
    if len(found) != 1:
        # A whole key may have been given here: it must not be repeated.
        shown = f"{MARK}{wanted}" if named.startswith(MARK) else repr(named[:64])
        what = f"There is no key {shown}." if not found else f"{len(found)} keys are named {shown}."
        raise InputError(what, money="Nothing was changed.", todo="Look at them: tally keys list.")
    return found[0]


def _read(text: str | None) -> Key | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=Key)
    except (msgspec.DecodeError, ValueError):
        return None


class KeyRing:
    """The keys in force, as this process knows them. `reload` reads them again; an id that is not known is asked for at
    the ledger, so that a new key works at once. `ticks` gives seconds that only grow."""

    def __init__(self, ledger: Ledger, ticks: Callable[[], float]) -> None:
        self._ledger = ledger
        self._ticks = ticks
        self._keys: dict[str, Key] = {}
        self._missed: dict[str, float] = {}
        self.faults = 0

    def reload(self) -> None:
        """Reads all keys; a ledger that cannot be read leaves those that are known. Blocks."""
        try:
            self._keys = {key.key_id: key for key in saved(self._ledger)}
        except LedgerError:
            self.faults += 1
        self._missed.clear()

    def knows(self, token: str) -> bool:
        """Whether `check` needs nothing from the ledger."""
        key_id = token[len(MARK) : len(MARK) + ID_LENGTH]
        return (
            len(token) != _LENGTH
            or key_id in self._keys
            or self._missed.get(key_id, float("-inf")) + MISS_SECONDS > self._ticks()
        )

    def look(self, token: str) -> None:
        """Asks the ledger for the key that bears this prefix. Blocks."""
        key_id = token[len(MARK) : len(MARK) + ID_LENGTH]
        try:
            key = _read(self._ledger.state(NAMESPACE, key_id))
        except LedgerError:
            self.faults += 1
            return
        if key is not None:
            self._keys[key_id] = key
            return
        if len(self._missed) >= _MOST_MISSES:
            self._missed.clear()
        self._missed[key_id] = self._ticks()

    def check(self, token: str, now: datetime) -> Key | None:
        """The valid key that this is, or None. Takes the same time for a wrong secret as for the right one."""
        key = self._keys.get(token[len(MARK) : len(MARK) + ID_LENGTH])
        same = hmac.compare_digest(_digest(token), _NOBODY if key is None else key.digest)
        return key if same and key is not None and key.state(now) == "valid" else None
