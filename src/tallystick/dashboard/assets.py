"""Assets: the files that pages need, each under a name that changes with its content, so that a browser asks once."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

from tallystick.dashboard.http import Reply

FOLDER: Final = Path(__file__).parent / "static"
PREFIX: Final = "/static"
KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Assets:
    """The files of the folder as they are now: their addresses by name, and their answers by address."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.urls: dict[str, str] = {}
        self.replies: dict[str, Reply] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix not in KINDS:
                continue
            body = path.read_bytes()
            mark = hashlib.blake2b(body, digest_size=6).hexdigest()
            url = f"{PREFIX}/{path.stem}.{mark}{path.suffix}"
            self.urls[path.name] = url
            cache = b"public, max-age=31536000, immutable"
            self.replies[url] = Reply(
                200, body, KINDS[path.suffix], zipped=gzip.compress(body, 9, mtime=0), cache=cache
            )

    def reply(self, url: str) -> Reply | None:
        """The answer to an address; None where there is no such file, or it has changed since."""
        return self.replies.get(url)
