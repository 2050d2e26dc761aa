"""Content encodings: the reader's own copy of a compressed body, inflated piece by piece and never beyond a bound.

gzip and deflate come with Python; br and zstd are read where a package for them is installed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

from tallystick.wire.sse import LIMIT

_GZIP_OR_ZLIB: Final = 47
_RAW: Final = -15
_STEP: Final = 2**16
_SLICE: Final = 256
"""zstandard's decompressor has no bound of its own. A block of 4 bytes makes at most 128 KiB, so 256 bytes make at most
8 MiB."""


class Inflating(Protocol):
    """One decoder at work."""

    def feed(self, data: bytes, most: int) -> bytes:
        """The bytes that `data` inflates to; more than `most` of them means that there were too many."""


class _Zlib:
    def __init__(self, seen: bytes) -> None:
        self._inner = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._seen = seen

    def feed(self, data: bytes, most: int) -> bytes:
        made = bytearray()
        while data and len(made) <= most:
            try:
                made += self._inner.decompress(data, most + 1 - len(made))
            except zlib.error:
                # Some servers send deflate without the zlib header; only its first bytes can tell.
                if len(self._seen) > 1:
                    raise
                self._inner = zlib.decompressobj(_RAW)
                data, self._seen = self._seen + data, b"raw"
                continue
            if len(self._seen) < 2:
                self._seen += data[:2]
            data = self._inner.unconsumed_tail
            if self._inner.eof:
                data = self._inner.unused_data
                self._inner = zlib.decompressobj(_GZIP_OR_ZLIB)
                self._seen = b"next"
        return bytes(made)


class _Brotli:
    def __init__(self, module: Any) -> None:
        self._inner = module.Decompressor()

    def feed(self, data: bytes, most: int) -> bytes:
        made = bytearray()
        # Input that is taken in may still have output waiting, so an empty answer is what ends this.
        while piece := self._inner.process(data, output_buffer_limit=_STEP):
            made += piece
            data = b""
            if len(made) > most:
                break
        return bytes(made)


class _Zstd:
    def __init__(self, module: Any) -> None:
        self._inner = module.ZstdDecompressor()

    def feed(self, data: bytes, most: int) -> bytes:
        return bytes(self._inner.decompress(data, most + 1))


class _Zstandard:
    def __init__(self, module: Any) -> None:
        self._inner = module.ZstdDecompressor().decompressobj()

    def feed(self, data: bytes, most: int) -> bytes:
        made = bytearray()
        for start in range(0, len(data), _SLICE):
            made += self._inner.decompress(data[start : start + _SLICE])
            if len(made) > most:
                break
        return bytes(made)


_PACKAGES: Final[dict[str, tuple[tuple[str, Callable[[Any], Inflating]], ...]]] = {
    "br": (("brotli", _Brotli), ("brotlicffi", _Brotli)),
    "zstd": (("compression.zstd", _Zstd), ("backports.zstd", _Zstd), ("zstandard", _Zstandard)),
}


class Inflater:
    """Inflates a body. `fault` says why nothing comes any more: more than `limit` bytes, a broken body, an encoding
    that cannot be read here. Never raises, whatever the bytes."""

    __slots__ = ("_errors", "_inner", "_left", "fault", "limit")

    def __init__(self, encoding: str, limit: int = LIMIT) -> None:
        self.limit = self._left = limit
        self.fault: str | None = None
        self._inner, self._errors = _decoder(encoding)
        if self._inner is None:
            self.fault = f"the content encoding {encoding[:40]!r} cannot be read here"

    def feed(self, data: bytes) -> bytes:
        """The plain bytes of these compressed ones."""
        if self._inner is None or self.fault is not None:
            return b""
        try:
            made = self._inner.feed(data, self._left)
        except self._errors as error:
            self.fault = f"the compressed body is broken: {error}"
            return b""
        self._left -= len(made)
        if self._left < 0:
            self.fault = f"the body inflates to more than {self.limit} bytes"
            return b""
        return made


def _decoder(encoding: str) -> tuple[Inflating | None, tuple[type[Exception], ...]]:
    """The decoder of an encoding, and what it raises for a broken body."""
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Zlib(b"" if encoding == "deflate" else b"gzip"), (zlib.error,)
    for name, make in _PACKAGES.get(encoding, ()):
        try:
            module = import_module(name)
        except ImportError:
            continue
        error = getattr(module, "error", None) or module.ZstdError
        # A decoder that has reached its end refuses more bytes with EOFError; an old one does not know its bound.
        return make(module), (error, EOFError, TypeError)
    return None, ()


def inflated(encoding: str | None, body: bytes, limit: int = LIMIT) -> bytes | None:
    """A whole body without its content encoding, or None where it cannot be read within `limit` bytes."""
    if not encoding or encoding == "identity":
        return body
    inflater = Inflater(encoding, limit)
    plain = inflater.feed(body)
    return None if inflater.fault is not None else plain
