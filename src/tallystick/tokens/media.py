"""How many tokens images, sound and PDF pages count, by dated rules with bounds. Nothing here opens a picture."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from tallystick.errors import InputError
from tallystick.tokens.count import Count
from tallystick.tokens.rules import find, load

Row = Mapping[str, Any]


def _bounds(likely: float, low: float, high: float, basis: str) -> Count:
    tokens = math.ceil(likely)
    return Count(tokens, min(tokens, max(1, math.floor(low))), max(tokens, math.ceil(high)), "estimate", None, basis, 0)


def _tiles(row: Row, width: int, height: int, detail: str) -> tuple[float, float]:
    if detail == "low":
        return row["base"], row["base"]
    scale = min(1.0, row["box"] / max(width, height))
    scale *= min(1.0, row["short"] / (min(width, height) * scale))
    across = math.ceil(round(width * scale, 6) / row["square"])
    down = math.ceil(round(height * scale, 6) / row["square"])
    tokens = row["base"] + row["tile"] * across * down
    # With "auto" the provider may choose the low detail.
    return tokens, tokens if detail == "high" else row["base"]


def _patches(row: Row, width: int, height: int, _detail: str) -> tuple[float, float]:
    square, cap = row["square"], row["cap"]
    across, down = math.ceil(width / square), math.ceil(height / square)
    if across * down > cap:
        scale = math.sqrt(square * square * cap / (width * height))
        # Whole patches must fit, so the side that would need a part of one shrinks to the patch border.
        wide, high = width * scale / square, height * scale / square
        scale *= min(math.floor(wide) / wide or 1.0, math.floor(high) / high or 1.0)
        across, down = math.ceil(round(width * scale / square, 6)), math.ceil(round(height * scale / square, 6))
    tokens = min(cap, across * down) * row["factor"]
    return tokens, tokens


def _area(row: Row, width: int, height: int, _detail: str) -> tuple[float, float]:
    scale = min(1.0, row["edge"] / max(width, height))
    tokens = min(row["cap"], width * scale * height * scale / row["divisor"])
    return tokens, tokens


def _crops(row: Row, width: int, height: int, _detail: str) -> tuple[float, float]:
    if width <= row["small"] and height <= row["small"]:
        return row["tile"], row["tile"]
    count = math.ceil(width / row["square"]) * math.ceil(height / row["square"])
    count = min(count, row.get("most", count)) + row.get("extra", 0)
    return count * row["tile"], row["tile"]


def _levels(row: Row, _width: int, _height: int, detail: str) -> tuple[float, float]:
    tokens = row["levels"].get(detail, row["levels"]["auto"])
    return tokens, tokens


_RULES: Final[Mapping[str, Callable[[Row, int, int, str], tuple[float, float]]]] = {
    "tiles": _tiles,
    "patches": _patches,
    "area": _area,
    "crops": _crops,
    "levels": _levels,
}

# Sizes tried for an image whose size is not known: a thumbnail, an ordinary picture, the largest that are sent, and the
# shapes that make most of every rule.
_UNKNOWN_SIZES: Final = ((32, 32), (1024, 1024), (8000, 8000), (8000, 4000), (2048, 768), (1568, 1568))


def image_tokens(width: int | None, height: int | None, model: str, detail: str = "auto") -> Count:
    """The tokens of one image of `width` x `height` pixels (None: unknown) for a model.

    `detail` is the request's own word (low, high, auto, or a resolution level). An unknown model or size gives wide
    bounds, never one flat number. Raises `InputError` if a size is not positive.
    """
    if (width is not None and width <= 0) or (height is not None and height <= 0):
        raise InputError(
            f"An image cannot be {width} x {height} pixels.",
            money="Nothing was counted.",
            todo="State the size in pixels, or none.",
        )
    table = load("media")
    row = find("media", "image", model)
    if row is None:
        wide = table["unknown"]["image"]
        likely = wide["likely"]
        if width is not None and height is not None:
            likely = min(max(width * height / 750, wide["low"]), wide["high"] / 2)
        why = f"no image rule is known for {model}; the bounds are wide"
        return _bounds(likely, min(likely, wide["low"]), wide["high"], why)
    rule = _RULES[row["rule"]]
    low_factor, high_factor = row["factors"]
    basis = f"image rule '{row['rule']}' of {table['dated']}"
    if width is not None and height is not None:
        tokens, low = rule(row, width, height, detail)
        return _bounds(tokens, low * low_factor, tokens * high_factor, f"{basis} for {width} x {height} pixels")
    tried = [rule(row, *size, detail) for size in _UNKNOWN_SIZES]
    low = min(low for _, low in tried) * low_factor
    high = max(tokens for tokens, _ in tried) * high_factor
    return _bounds(tried[1][0], low, high, f"{basis}; the size of the image is unknown")


def _per_unit(kind: str, unit: str, quantity: float, model: str) -> Count:
    if not quantity >= 0 or math.isinf(quantity):
        raise InputError(
            f"{quantity} is no length of {kind}.",
            money="Nothing was counted.",
            todo="State a number that is not negative.",
        )
    table = load("media")
    row = find("media", kind, model)
    low, likely, high = (row or table["unknown"][kind])[unit]
    known = f"{kind} rule of {table['dated']}" if row else f"no {kind} rule is known for {model}; the bounds are wide"
    return _bounds(quantity * likely, quantity * low, quantity * high, known)


def audio_tokens(seconds: float, model: str) -> Count:
    """The tokens of `seconds` of sound handed to a model. Raises `InputError` if negative or not finite."""
    return _per_unit("audio", "per_second", seconds, model)


def pdf_tokens(pages: int, model: str) -> Count:
    """The tokens of a PDF of so many pages handed to a model. Raises `InputError` if negative."""
    return _per_unit("pdf", "per_page", pages, model)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the first bytes of a PNG, JPEG, GIF or WebP file; None if they do not say."""
    try:
        size: tuple[int, ...] | None
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            size = struct.unpack_from(">II", data, 16)
        elif data[:6] in (b"GIF87a", b"GIF89a"):
            size = struct.unpack_from("<HH", data, 6)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            size = _webp_size(data)
        elif data.startswith(b"\xff\xd8"):
            size = _jpeg_size(data)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return (size[0], size[1]) if size is not None and size[0] > 0 and size[1] > 0 else None


def _webp_size(data: bytes) -> tuple[int, ...] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        wide, high = struct.unpack_from("<HH", data, 26)
        return wide & 0x3FFF, high & 0x3FFF
    return None


def _jpeg_size(data: bytes) -> tuple[int, ...] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            high, wide = struct.unpack_from(">HH", data, at + 5)
            return wide, high
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
