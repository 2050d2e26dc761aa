"""Loads what the processes of chaos.py need, once: they are forked from the process that has imported this."""

from __future__ import annotations

import contextlib

import openai

import _chaos_client as clients
import tallystick
from tallystick import defaults
from tallystick.ledger.sqlite import SqliteLedger  # noqa: F401 - loaded for those that are forked

defaults.catalog()
tallystick.count(clients.TEXT, model=clients.MODEL)
with (
    contextlib.suppress(openai.APIError),
    openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9", max_retries=0) as _client,
):
    # A call to nobody, without a meter: a client loads most of itself with its first one.
    _client.chat.completions.create(model=clients.MODEL, messages=[{"role": "user", "content": clients.TEXT}])
