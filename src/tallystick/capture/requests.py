"""requests: sessions and adapters, metered in the connection pools below them, so that retries and redirects are
attempts of their own and every way of reading an answer stays as it is."""

from __future__ import annotations

import functools
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from tallystick.capture import urllib3 as pools
from tallystick.capture.attempt import MeterFor, original, ours


def handles(client: object) -> bool:
    """Whether `attach` knows what to do with this object: a session or an HTTP adapter."""
    return isinstance(client, requests.Session | HTTPAdapter)


def attach(client: Any, meter_for: MeterFor) -> None:
    """Meters the calls of one session, with the adapters mounted later, or of one adapter. An adapter that is no
    HTTPAdapter sends in a way of its own and is left alone."""
    if isinstance(client, HTTPAdapter):
        _attach_adapter(client, meter_for)
        return
    for adapter in client.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            _attach_adapter(adapter, meter_for)
    plain = original(client.mount)

    @functools.wraps(plain)
    def mount(prefix: Any, adapter: Any) -> None:
        plain(prefix, adapter)
        if isinstance(adapter, HTTPAdapter):
            _attach_adapter(adapter, meter_for)

    client.mount = ours(mount, plain)


def _attach_adapter(adapter: Any, meter_for: MeterFor) -> None:
    pools.attach(adapter.poolmanager, meter_for)
    for manager in adapter.proxy_manager.values():
        pools.attach(manager, meter_for)
    plain = original(adapter.proxy_manager_for)

    @functools.wraps(plain)
    def proxy_manager_for(proxy: str, **options: Any) -> Any:
        manager = plain(proxy, **options)
        pools.attach(manager, meter_for)
        return manager

    adapter.proxy_manager_for = ours(proxy_manager_for, plain)
