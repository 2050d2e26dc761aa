"""Encodings: the bundled ranks, and the fastest tokenizer that reads them and is safe to use.

Nothing is downloaded. Every encoding has up to three backends that give the same tokens: `quicktok` (the extra
`[fast]`), `tiktoken`, and the readable reference. The environment variable TALLY_TOKENIZER forces one of them. A
backend that fails, in whatever way, is replaced by the next one for that text, so any text has a count.
"""

from __future__ import annotations

import binascii
import hashlib
import importlib
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from tallystick.errors import ConfigError, TextError
from tallystick.tokens import bpe
from tallystick.tokens.boundaries import Boundaries
from tallystick.tokens.quick import ALLOWANCE, LONGEST, Quick
from tallystick.tokens.rules import HERE, find, load

BACKENDS: Final = ("quicktok", "tiktoken", "reference")
"""The tokenizers behind an encoding, fastest first; the values TALLY_TOKENIZER accepts."""

# Longer texts are cut where that changes nothing: memory stays small, and no run of white space gets near the length
# (about a million) at which tiktoken's pattern engine gives up.
_CHUNK: Final = 60_000
# A part without a single safe cut that is longer than this goes to the linear reference splitter.
_UNCUTTABLE: Final = 200_000

_FAST_DISTRIBUTION: Final = ("quicktok-v1", "0.4.0")
_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
# What must never be swallowed by the tokenizer guard.
_LEAVE: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)


class DecodedText(NamedTuple):
    """Text read from bytes. `replaced` is the number of replacement characters put in for bytes that are not UTF-8."""

    text: str
    replaced: int


def decode(data: bytes) -> DecodedText:
    """Read bytes as UTF-8, replacing what is not, and say how often. A byte order mark is dropped. Never raises."""
    text = data.decode("utf-8-sig", "replace")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        original = data.count("\ufffd".encode())
        return DecodedText(text, text.count("\ufffd") - original)
    return DecodedText(text, 0)


def repair(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates by U+FFFD, so that the text can be written as UTF-8."""

    def mended(found: re.Match[str]) -> str:
        pair = found.group()
        return pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le") if len(pair) == 2 else "\ufffd"

    return _SURROGATES.sub(mended, text)


class Backend(Protocol):
    """One way to tokenize. `encode` treats special tokens as ordinary text; either method may fail on odd text."""

    @property
    def name(self) -> str:
        """One of BACKENDS."""

    @property
    def encode_piece(self) -> Callable[[bytes], list[int]] | None:
        """Tokenizes one pretoken given as UTF-8; None where `encode` takes time in proportion to any text."""

    @property
    def encode(self) -> Callable[[str], list[int]]:
        """The token numbers of a text."""

    @property
    def count(self) -> Callable[[str], int]:
        """The number of tokens of a text."""


class _Reference:
    name = "reference"

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def encode(self, text: str) -> list[int]:
        return bpe.encode(text, self._encoding.splitter, self._encoding.ranks)

    def encode_piece(self, piece: bytes) -> list[int]:
        ranks = self._encoding.ranks
        return [ranks[token] for token in bpe.merge(piece, ranks)]

    def count(self, text: str) -> int:
        return len(self.encode(text))


class _Tiktoken:
    name = "tiktoken"

    def __init__(self, encoding: Encoding) -> None:
        core = importlib.import_module("tiktoken").Encoding(
            encoding.name,
            pat_str=encoding.pattern,
            mergeable_ranks=encoding.ranks,
            special_tokens=dict(encoding.special_tokens),
        )
        self.encode: Callable[[str], list[int]] = core.encode_ordinary
        self.encode_piece: Callable[[bytes], list[int]] = core._encode_single_piece  # noqa: SLF001 - tiktoken has no public name for it

    def count(self, text: str) -> int:
        return len(self.encode(text))


class _Quicktok:
    name = "quicktok"

    def __init__(self, encoding: Encoding) -> None:
        core = _fast_module().get_encoding(encoding.name)
        self._encode: Callable[[str], list[int]] = core.encode_ordinary
        self._count: Callable[[str], int] = core.count
        # Its tables are of a newer Unicode than tiktoken's, so it splits some characters differently; and it does not
        # know that the long s ends a contraction as s does.
        self._differs = re.compile(f"['][\u017f]|[{bpe.character_class(load('unicode')['changed'])}]").search
        self.encode_piece = None

    def _check(self, text: str) -> None:
        if self._differs(text):
            raise ValueError("tiktoken reads a character of this text differently")

    def encode(self, text: str) -> list[int]:
        if not text.isascii():
            self._check(text)
        return self._encode(text)

    def count(self, text: str) -> int:
        if not text.isascii():
            self._check(text)
        return self._count(text)


def _fast_module() -> Any:
    """The module of the extra, if it is exactly the distribution that was checked. Raises `ImportError` otherwise."""
    name, version = _FAST_DISTRIBUTION
    # Loaded here because it costs more than the rest of this room and only a first count needs it.
    metadata = importlib.import_module("importlib.metadata")
    distribution = metadata.distribution(name)  # PackageNotFoundError is an ImportError
    if distribution.version != version:
        raise ImportError(f"{name} {distribution.version} is installed, {version} is the one that was checked")
    module = importlib.import_module("quicktok")
    # Another distribution has the same import name; only the file that this one owns will do.
    expected = Path(str(distribution.locate_file("quicktok/__init__.py")))
    if module.__file__ is None or Path(module.__file__).resolve() != expected.resolve():
        raise ImportError("another distribution owns the module quicktok")
    return module


def _raw_ranks(name: str, sha256: str) -> bytes:
    packed = (HERE / "ranks" / f"{name}.tiktoken.gz").read_bytes()
    raw = zlib.decompress(packed, wbits=31)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ConfigError(
            f"The bundled tokenizer file {name} is damaged.",
            money="Counts made with it would be wrong, so none was made.",
            todo="Install tallystick again.",
        )
    return raw


@cache
def _ranks(name: str, sha256: str) -> Mapping[bytes, int]:
    fields = _raw_ranks(name, sha256).split()
    return dict(zip(map(binascii.a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))


_MAKERS: Final[Mapping[str, Callable[[Encoding], Backend]]] = {
    "quicktok": _Quicktok,
    "tiktoken": _Tiktoken,
    "reference": _Reference,
}


class Encoding:
    """A tokenizer by name. Made by `encoding()`; may be shared between threads. Loading happens at the first count."""

    def __init__(self, name: str, backend: str | None = None) -> None:
        facts = load("encodings")["encoding"][name]
        self.name: str = name
        self.pattern: str = facts["pattern"]
        self.splitter: str = facts["splitter"]
        self.boundaries = Boundaries(facts["boundary"])
        self._file: tuple[str, str] = (facts["ranks"], facts["sha256"])
        reserved = {f"<|reserved_{n}|>": n for low, high in facts.get("reserved", ()) for n in range(low, high + 1)}
        self.special_tokens: Mapping[str, int] = {**facts["special"], **reserved}
        self._names = BACKENDS if backend is None else (backend,)
        self._made: dict[str, Backend | None] = {}
        self._lock = threading.Lock()
        self._by_number: Mapping[int, bytes] | None = None
        self._quick: Quick | None = None
        # A backend that is asked for by name is meant.
        self._allowance = ALLOWANCE if backend is None else 0
        self._count: Callable[[str], int] = self._first_count

    def __repr__(self) -> str:
        return f"<Encoding {self.name}>"

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """The mergeable tokens and their numbers, which are also their merge order."""
        return _ranks(*self._file)

    @property
    def backend(self) -> str:
        """The tokenizer in use: `quicktok`, `tiktoken` or `reference`. Loads it."""
        return self._best().name

    def count(self, text: str) -> int:
        """The number of tokens of `text`, exactly. Special tokens are ordinary text. Never fails on a string."""
        if len(text) > _CHUNK:
            return sum(map(self._count_part, self.boundaries.chunks(text, _CHUNK)))
        try:
            return self._count(text)
        except BaseException as fault:  # the guard: tiktoken's PanicException is no Exception
            if isinstance(fault, _LEAVE):
                raise
        return len(self._rescue(text))

    def encode(self, text: str) -> list[int]:
        """The token numbers of `text`. Special tokens are ordinary text. Never fails on a string."""
        if len(text) <= _CHUNK:
            quick = self._quickly(text)
            return self._encode_part(text) if quick is None else quick
        return [token for part in self.boundaries.chunks(text, _CHUNK) for token in self._encode_part(part)]

    def count_stream(self, chunks: Iterable[str]) -> int:
        """The number of tokens of the joined chunks, exactly, in memory that does not grow with their number.

        Only a text in which no safe cut ever comes (one endless word) is kept whole.
        """
        total, tail = 0, ""
        goal = _CHUNK
        for chunk in chunks:
            tail += chunk
            if len(tail) < goal:
                continue
            cut = self.boundaries.last(tail)
            total, tail = total + self.count(tail[:cut]), tail[cut:]
            goal = max(_CHUNK, 2 * len(tail))
        return total + self.count(tail)

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for. Raises `TextError` if there is no such token."""
        if self._quick is not None and (found := self._quick.lookup.token_bytes(token)) is not None:
            return found
        if self._by_number is None:
            numbers = {number: piece for piece, number in self.ranks.items()}
            numbers.update((number, text.encode()) for text, number in self.special_tokens.items())
            self._by_number = numbers
        try:
            return self._by_number[token]
        except KeyError:
            raise TextError(f"{self.name} has no token {token}.", todo="Check the name of the encoding.") from None

    def explain(self, text: str) -> Iterator[bpe.Piece]:
        """The pretokens of `text` with their tokens, by the readable reference."""
        return bpe.explain(repair(text), self.splitter, self.ranks)

    def _quickly(self, text: str) -> list[int] | None:
        """The tokens of a short text while no tokenizer is loaded; None when one should be."""
        if self._allowance <= 0 or len(text) > LONGEST or self._made or not text.isascii():
            return None
        self._allowance -= len(text)
        if self._quick is None:
            self._quick = Quick(_raw_ranks(*self._file), self.splitter)
        return self._quick.encode(text)

    def _first_count(self, text: str) -> int:
        quick = self._quickly(text)
        if quick is not None:
            return len(quick)
        self._quick = None
        self._count = self._best().count
        return self._count(text)

    def _best(self) -> Backend:
        return next(self._usable())

    def _usable(self) -> Iterator[Backend]:
        for name in dict.fromkeys((*self._names, "reference")):
            with self._lock:
                if name not in self._made:
                    self._made[name] = self._make(name)
            made = self._made[name]
            if made is not None:
                yield made

    def _make(self, name: str) -> Backend | None:
        if name == "reference":
            return _Reference(self)
        try:
            made = _MAKERS[name](self)
            made.count("a")
        except ConfigError:
            raise
        except BaseException as fault:  # the guard: a backend that cannot be loaded is no backend, whatever it throws
            if isinstance(fault, _LEAVE):
                raise
            return None
        return made

    def _count_part(self, text: str) -> int:
        return self.count(text) if len(text) <= _CHUNK else len(self._encode_part(text))

    def _encode_part(self, text: str) -> list[int]:
        try:
            backend = self._best()
            if len(text) <= _UNCUTTABLE or backend.encode_piece is None:
                return backend.encode(text)
            pieces = bpe.split(repair(text), self.splitter)
            return [token for piece in pieces for token in backend.encode_piece(piece.encode())]
        except BaseException as fault:  # the guard, as in `count`
            if isinstance(fault, _LEAVE):
                raise
        return self._rescue(text)

    def _rescue(self, text: str) -> list[int]:
        """Tokenize a text the first backend refused, repaired, by each in turn; the reference takes anything."""
        text = repair(text)
        for backend in self._usable():
            try:
                return backend.encode(text)
            except BaseException as fault:  # the guard, as in `count`
                if isinstance(fault, _LEAVE) or backend.name == "reference":
                    raise
        raise AssertionError("the reference is always usable")


@cache
def _shared(name: str, backend: str | None) -> Encoding:
    return Encoding(name, backend)


def encoding(name: str) -> Encoding:
    """The encoding called `name` (o200k_base, o200k_harmony, cl100k_base, p50k_base, p50k_edit, r50k_base).

    Raises `ConfigError` for another name, or if TALLY_TOKENIZER is set to something else than a backend's name.
    """
    table = load("encodings")
    known = table["alias"].get(name, name)
    if known not in table["encoding"]:
        names = ", ".join((*table["encoding"], *table["alias"]))
        raise ConfigError(
            f"There is no encoding called {name!r}.", money="Nothing was counted.", todo=f"Use one of {names}."
        )
    forced = os.environ.get("TALLY_TOKENIZER") or None
    if forced is not None and forced not in BACKENDS:
        raise ConfigError(
            f"TALLY_TOKENIZER is {forced!r}.",
            money="Nothing was counted.",
            todo=f"Set it to one of {', '.join(BACKENDS)}, or unset it.",
        )
    return _shared(known, forced)


def encoding_for(model: str) -> str | None:
    """The name of the encoding a model uses, or None if the data does not know it (then a count is an estimate).

    Provider prefixes (openai/..., azure/...), fine-tunes (ft:...) and dated names are understood.
    """
    row = find("encodings", "model", model)
    return None if row is None else str(row["encoding"])
