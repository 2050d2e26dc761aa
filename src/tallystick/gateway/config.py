"""Configuration of the gateway: what [gateway] and [upstreams.NAME] say, checked, with the environment on top."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.config import Config
from tallystick.errors import ConfigError
from tallystick.gateway.secrets import STYLES, Secret, private_text, read_secrets, resolve, secret_of
from tallystick.gateway.sending import CONNECT_SECONDS, READ_SECONDS
from tallystick.gateway.upstreams import BUILT_IN, Upstream, upstream, upstreams

PORT: Final = 4100
MAX_BODY: Final = 256 * 2**20
"""The largest request that is taken, in bytes: some hundred pictures."""

UPSTREAM_KEYS: Final = ("url", "provider", "key", "auth")
_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "host": str, "port": int, "hosts": list, "workers": int, "max_body": int, "token": str, "secrets": str, "ca": str,
    "connect_timeout": (int, float), "read_timeout": (int, float), "own_keys": bool,
}  # fmt: skip
_MOST_WORKERS: Final = 64


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway goes by. `hosts` are names beside loopback under which it may be addressed; `token` is the one
    without which nothing is served; `keys` are the providers' keys it holds, by upstream; `own_keys` lets callers
    bring a provider's key of their own. Timeouts are in seconds, `max_body` in bytes."""

    upstreams: Mapping[str, Upstream]
    keys: Mapping[str, Secret] = {}
    host: str = "127.0.0.1"
    port: int = PORT
    hosts: tuple[str, ...] = ()
    workers: int = 1
    max_body: int = MAX_BODY
    token: str | None = None
    ca: bytes | None = None
    connect_timeout: float = CONNECT_SECONDS
    read_timeout: float = READ_SECONDS
    own_keys: bool = True
    watched: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"Settings(host={self.host!r}, port={self.port}, upstreams={sorted(self.upstreams)})"


def settings_of(
    config: Config,
    env: Mapping[str, str],
    *,
    given: Mapping[str, str] | None = None,
    token_file: Path | None = None,
) -> Settings:
    """What a configuration and the environment say; `given` are upstreams of the command line, NAME to URL. Raises
    ConfigError that names the section and the key."""
    where = f"[gateway] in {config.path or 'the configuration'}"
    table = checked(config.gateway, where)
    stated, references = _stated(config)
    places = upstreams(stated, env, given or {})
    watched = [] if config.path is None else [config.path]
    kept: dict[str, str] = {}
    if "secrets" in table:
        path = Path(table["secrets"]).expanduser()
        kept = read_secrets(path)
        watched.append(path)
    keys: dict[str, Secret] = {}
    for name, place in places.items():
        reference, style = references.get(name, (None, None))
        held = secret_of(name, place.provider, reference, style, env, kept)
        if held is not None:
            keys[name] = held
    token = None
    if token_file is not None:
        token = private_text(token_file.expanduser()).strip()
    elif "token" in table:
        token = resolve(table["token"], env)
    elif env.get("TALLY_TOKEN"):
        token = env["TALLY_TOKEN"]
    if token is not None and len(token) < 16:
        raise ConfigError("The token is too short to be one.", todo="Take at least 16 characters: openssl rand -hex 32")
    plain = {name: table[name] for name in table.keys() - {"secrets", "token", "hosts", "ca"}}
    return Settings(
        upstreams=places, keys=keys, token=token, ca=_ca(table, env), hosts=tuple(table.get("hosts", ())),
        watched=tuple(watched), **plain,
    )  # fmt: skip


def checked(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The [gateway] section with every key and value in its place. Raises ConfigError with the nearest known key."""
    for key, value in table.items():
        if key not in _KINDS:
            raise _unknown(key, tuple(_KINDS), where)
        if not isinstance(value, _KINDS[key]) or (isinstance(value, bool) and _KINDS[key] is not bool):
            raise ConfigError(f"{key} in {where} makes no sense: {value!r}.")
    if not all(isinstance(host, str) and host for host in table.get("hosts", [])):
        raise ConfigError(f"hosts in {where} is a list of names.", todo='Write hosts = ["tally.example.org"].')
    ranges = {"port": (0, 65535), "workers": (1, _MOST_WORKERS), "max_body": (1024, 2**40)}
    for key, (low, high) in ranges.items():
        if key in table and not low <= table[key] <= high:
            raise ConfigError(f"{key} in {where} must be from {low:,} to {high:,}.")
    for key in ("connect_timeout", "read_timeout"):
        if key in table and not 0 < table[key] <= 86_400:
            raise ConfigError(f"{key} in {where} is a number of seconds above 0.")
    return table


def _stated(config: Config) -> tuple[dict[str, Upstream], dict[str, tuple[str | None, str | None]]]:
    """The upstreams of the configuration, and for each the reference to its key and how it is sent."""
    found: dict[str, Upstream] = {}
    references: dict[str, tuple[str | None, str | None]] = {}
    for name, row in config.upstreams.items():
        where = f"[upstreams.{name}] in {config.path or 'the configuration'}"
        for key, value in row.items():
            if key not in UPSTREAM_KEYS:
                raise _unknown(key, UPSTREAM_KEYS, where)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{key} in {where} must be text.")
        said = {key: str(value) for key, value in row.items()}
        url = said.get("url") or (BUILT_IN[name].url if name in BUILT_IN else None)
        if url is None:
            raise ConfigError(f"{where} has no url.", todo='Write url = "https://host/v1".')
        if said.get("auth", "bearer") not in STYLES:
            raise ConfigError(f"auth in {where} is one of: {', '.join(STYLES)}.")
        found[name] = upstream(name, url, said.get("provider"))
        references[name] = said.get("key"), said.get("auth")
    return found, references


def _ca(table: Mapping[str, Any], env: Mapping[str, str]) -> bytes | None:
    named = table.get("ca") or env.get("SSL_CERT_FILE")
    if not named:
        return None
    try:
        return Path(named).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"The certificates in {named} cannot be read: {error.strerror}.") from None


def _unknown(key: str, known: tuple[str, ...], where: str) -> ConfigError:
    near = difflib.get_close_matches(key, known, 1, 0.3)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
    return ConfigError(f"Unknown key {key!r} in {where}.", todo=hint)
