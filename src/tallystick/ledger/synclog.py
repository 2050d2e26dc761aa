"""Synclog: makes the disk keep what was committed to a ledger's file. In WAL mode that is the file beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tallystick.errors import LedgerUnavailable

_datasync: Final = getattr(os, "fdatasync", os.fsync)


def sync_log(path: Path, log: Path) -> None:
    """Returns when the disk has all that was committed to the ledger `path`, whose log is `log`. Raises
    LedgerUnavailable."""
    try:
        file = os.open(log, os.O_RDWR)
    except FileNotFoundError:
        return  # the last connection has gone, and has synced everything into the file itself
    except OSError as error:
        raise _unsynced(path, error) from error
    try:
        _datasync(file)
    except OSError as error:
        raise _unsynced(path, error) from error
    finally:
        os.close(file)


def _unsynced(path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"The disk did not keep what was written to the ledger {path}: {error.strerror or error}.",
        money="The last entries may be lost in a power cut.",
        todo="Check the disk and its free space, then open the ledger again.",
    )
