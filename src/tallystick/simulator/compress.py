"""Compress: content encodings, whole and piece by piece. gzip comes with Python; br and zstd need a package."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

_GZIP: Final = 31


class Compressor:
    """Compresses a body so that each part can be read as soon as it has come."""

    def __init__(self, inner: Any, part: tuple[Any, ...], end: tuple[Any, ...], feed: str = "compress") -> None:
        self._feed = getattr(inner, feed)
        self._flush = inner.flush
        self._finish = getattr(inner, "finish", inner.flush)
        self._part = part
        self._end = end

    def part(self, data: bytes) -> bytes:
        """The next bytes, flushed."""
        return bytes(self._feed(data) + self._flush(*self._part))

    def end(self) -> bytes:
        """What remains."""
        return bytes(self._finish(*self._end))

    def whole(self, data: bytes) -> bytes:
        """A body in one piece."""
        return bytes(self._feed(data)) + self.end()


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def _brotli() -> Any:
    for name in ("brotli", "brotlicffi"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def accepted(encoding: str | None, headers: Mapping[str, str]) -> str | None:
    """The encoding if the client takes it and it can be written here, else None."""
    if encoding is None or encoding not in headers.get("accept-encoding", ""):
        return None
    needed = {"br": _brotli, "zstd": _zstd}.get(encoding)
    return encoding if needed is None or needed() is not None else None


def compressor(encoding: str) -> Compressor:
    """A compressor for an encoding that `accepted` has let pass."""
    if encoding == "br":
        return Compressor(_brotli().Compressor(), (), (), "process")
    if encoding == "zstd":
        module = _zstd()
        if hasattr(module, "ZstdCompressor") and hasattr(module.ZstdCompressor, "FLUSH_BLOCK"):
            made = module.ZstdCompressor()
            return Compressor(made, (made.FLUSH_BLOCK,), (made.FLUSH_FRAME,))
        return Compressor(
            module.ZstdCompressor().compressobj(), (module.COMPRESSOBJ_FLUSH_BLOCK,), (module.COMPRESSOBJ_FLUSH_FINISH,)
        )
    return Compressor(zlib.compressobj(wbits=_GZIP), (zlib.Z_SYNC_FLUSH,), (zlib.Z_FINISH,))
