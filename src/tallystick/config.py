"""Configuration: one TOML file, looked for in known places; an unknown key is an error that names the nearest one.

Precedence: command-line flag, `TALLY_*` variables, `./tally.toml`, `<config folder>/config.toml`. `TALLY_CONFIG` names
another file, `TALLY_LEDGER` another ledger.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.core.models import provider_id
from tallystick.core.periods import zone
from tallystick.core.rates import Rate, RateCard
from tallystick.core.usage import is_kind, unit_of
from tallystick.errors import CatalogError, ConfigError, InputError

SECTIONS: Final = ("ledger", "timezone", "rates", "budgets", "alerts", "upstreams", "gateway")
BUDGET_KEYS: Final = ("limit", "scope", "each", "hard", "failure", "sources", "tz", "anchor", "alerts")
ALERT_KEYS: Final = ("webhook", "slack", "command")
ADMISSION_WAIT: Final = 2.0
"""Seconds that a call waits for holds in flight, unless the configuration says otherwise."""
LONGEST_WAIT: Final = 3600
RATE_KEYS: Final = ("provider", "from", "to", "note")
MILLION: Final = 1_000_000
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told when a budget passes a threshold: addresses that take JSON, Slack's incoming webhooks, and a command
    as a list of words. An address may be `env:NAME` or `file:PATH`; it is read when something is sent."""

    webhooks: tuple[str, ...] = ()
    slack: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anybody is told."""
        return bool(self.webhooks or self.slack or self.command)


class Config(msgspec.Struct, frozen=True):
    """What the configuration says: the ledger's place, the report time zone, the user's own rates, the budgets as they
    are written (`metering.rules` makes Budgets of them), how many seconds a call waits for holds in flight, who is told
    of thresholds, and the gateway's upstreams and settings as they are written (`gateway.config` checks them)."""

    path: Path | None = None
    ledger: str | None = None
    timezone: str | None = None
    rates: tuple[RateCard, ...] = ()
    budgets: Mapping[str, Mapping[str, object]] = {}
    admission_wait: float = ADMISSION_WAIT
    alerts: Alerts = Alerts()
    upstreams: Mapping[str, Mapping[str, object]] = {}
    gateway: Mapping[str, object] = {}


def config_dir(env: Mapping[str, str], platform: str = os.name) -> Path:
    """The user's configuration folder for tallystick: `$XDG_CONFIG_HOME/tallystick`, `%APPDATA%/tallystick`, or
    `~/.config/tallystick`. A relative XDG_CONFIG_HOME is ignored, as its specification says. Raises ConfigError when
    the environment names no home folder."""
    base = env.get("APPDATA") if platform == "nt" else env.get("XDG_CONFIG_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "tallystick"
    home = env.get("USERPROFILE" if platform == "nt" else "HOME")
    if not home:
        raise ConfigError(
            "The environment names no home folder, so there is no place for a configuration.",
            todo="Set HOME, or TALLY_CONFIG to the file's path.",
        )
    return Path(home) / ".config" / "tallystick"


def find_config(env: Mapping[str, str], cwd: Path) -> Path | None:
    """The configuration file in force, or None. Raises ConfigError when TALLY_CONFIG names a file that is not there."""
    named = env.get("TALLY_CONFIG")
    if named:
        if not Path(named).is_file():
            what = f"TALLY_CONFIG names {named}, which is not a file."
            raise ConfigError(what, todo="Create it or unset TALLY_CONFIG.")
        return Path(named)
    places = [cwd / "tally.toml"]
    with contextlib.suppress(ConfigError):
        places.append(config_dir(env) / "config.toml")
    try:
        return next((place for place in places if place.is_file()), None)
    except OSError as error:
        raise ConfigError(f"The configuration in {error.filename} cannot be read: {error.strerror}.") from None


def target(env: Mapping[str, str], cwd: Path) -> Path:
    """The file that `rates set` writes: the one in force, else the one that TALLY_CONFIG or the user's configuration
    folder names. Raises ConfigError."""
    named = env.get("TALLY_CONFIG")
    return Path(named) if named else find_config(env, cwd) or config_dir(env) / "config.toml"


def load_config(env: Mapping[str, str], cwd: Path) -> Config:
    """Reads the configuration in force. Raises ConfigError with the file, the key and the nearest known one."""
    path = find_config(env, cwd)
    config = Config() if path is None else parse_config(read_text(path), path)
    timezone = env.get("TALLY_TIMEZONE") or config.timezone
    _check_zone(timezone, "TALLY_TIMEZONE" if env.get("TALLY_TIMEZONE") else f"timezone in {path}")
    return msgspec.structs.replace(config, ledger=env.get("TALLY_LEDGER") or config.ledger, timezone=timezone)


def read_text(path: Path) -> str:
    """The text of a configuration file. Raises ConfigError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.", todo="Save it as UTF-8.") from None


def write_text(path: Path, text: str) -> None:
    """Writes a configuration file in one step: a reader sees the old text or the new one. New files are 0600 in a 0700
    folder; an existing one keeps its mode. Raises ConfigError; then the old text stands."""
    import tempfile

    path = path.resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        number, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).chmod(mode)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}.",
            money="No rate was changed.",
            todo="Check the folder's rights, or set TALLY_CONFIG to another file.",
        ) from None


def parse_config(text: str, path: Path | None = None) -> Config:
    """Reads configuration text. Raises ConfigError."""
    import tomllib

    where = str(path or "the configuration")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}.", todo="Correct it; nothing was changed.") from None
    _known(table, SECTIONS, where)
    for key in ("ledger", "timezone"):
        if not isinstance(table.get(key, ""), str):
            raise ConfigError(f"{key} in {where} must be text.")
    _check_zone(table.get("timezone"), f"timezone in {where}")
    rates = table.get("rates", {})
    if not isinstance(rates, dict):
        raise ConfigError(f"[rates] in {where} must be a table of models.")
    cards = [card for model, rows in rates.items() for card in _cards(model, rows, where)]
    budgets, wait = _budgets(table.get("budgets", {}), where)
    told = _alerts(table.get("alerts", {}), where)
    named = _tables(table.get("upstreams", {}), "upstreams", where)
    (gateway,) = _tables({"gateway": table.get("gateway", {})}, "", where).values()
    return Config(path, table.get("ledger"), table.get("timezone"), tuple(cards), budgets, wait, told, named, gateway)


def _tables(table: object, section: str, where: str) -> dict[str, dict[str, object]]:
    """A section that holds tables only, as it is written."""
    if not isinstance(table, dict):
        raise ConfigError(f"[{section}] in {where} must be a table.")
    for name, row in table.items():
        if not isinstance(row, dict):
            raise ConfigError(f"[{section}.{name}] in {where} must be a table.".replace("[.", "["))
    return table


def _budgets(table: object, where: str) -> tuple[dict[str, dict[str, object]], float]:
    """The budgets of the configuration as they are written, and `admission_wait`."""
    if not isinstance(table, dict):
        raise ConfigError(f"[budgets] in {where} must be a table of budgets.")
    wait = table.get("admission_wait", ADMISSION_WAIT)
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= LONGEST_WAIT:
        raise ConfigError(f"admission_wait in {where} must be a number of seconds from 0 to {LONGEST_WAIT}.")
    rows = {name: row for name, row in table.items() if name != "admission_wait"}
    for name, row in rows.items():
        place = f"[budgets.{name}] in {where}"
        if not isinstance(row, dict):
            raise ConfigError(f"{place} must be a table.", todo=f'Write [budgets.{name}] and limit = "$50/day" below.')
        _known(row, BUDGET_KEYS, place)
    return rows, float(wait)


def _alerts(table: object, where: str) -> Alerts:
    place = f"[alerts] in {where}"
    if not isinstance(table, dict):
        raise ConfigError(f"{place} must be a table.")
    _known(table, ALERT_KEYS, place)
    named: dict[str, tuple[str, ...]] = {}
    for key in ALERT_KEYS:
        value = table.get(key, [])
        listed = [value] if isinstance(value, str) and key != "command" else value
        if not isinstance(listed, list) or not all(isinstance(text, str) and text for text in listed):
            form = '["notify-send", "tally"]' if key == "command" else '"env:NAME"'
            raise ConfigError(f"{key} in {place} makes no sense.", todo=f"Write {key} = {form}.")
        named[key] = tuple(listed)
    for address in named["webhook"]:
        if not address.startswith(("https://", "http://", "env:", "file:")):
            raise ConfigError(f"webhook in {place} must be an address, env:NAME or file:PATH.")
    if not all(address.startswith(("env:", "file:")) for address in named["slack"]):
        raise ConfigError(f"slack in {place} is a secret.", todo='Write slack = "env:NAME" or "file:PATH".')
    return Alerts(webhooks=named["webhook"], slack=named["slack"], command=named["command"])


def user_card(
    model: str,
    usd_per_million: Mapping[str, Decimal],
    *,
    provider: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    note: str = "",
) -> RateCard:
    """A rate card of the user's own, from `since` to before `until`. Token and character kinds are priced per million
    units, everything else per unit. Raises ConfigError for an unknown kind or an amount that makes no sense."""
    if not usd_per_million:
        raise ConfigError(f"No rate is given for {model!r}.", todo="Give at least --input and --output.")
    try:
        rates = {}
        for kind, usd in usd_per_million.items():
            if not is_kind(kind):
                raise ConfigError(f"{kind!r} is not a kind of usage, so it cannot have a rate.")
            rates[kind] = Rate(usd, MILLION if unit_of(kind) in ("token", "character") else 1)
        return RateCard(
            provider,
            model,
            rates,
            since,
            until,
            source="your configuration",
            status="user",
            fallbacks=_USER_FALLBACKS,
            note=note,
        )
    except CatalogError as error:
        raise ConfigError(f"The rates of {model!r} make no sense. {error}") from None


_USER_FALLBACKS: Final = {
    "reasoning": "output",
    "citation": "output",
    "cache_write_5m": "cache_write",
    "cache_read": "input",
    "cache_write": "input",
    "image_input": "input",
    "video_input": "input",
}
"""A user who gives only input and output means them for the plain variants too; audio and images out need a rate."""


def with_rate(text: str, card: RateCard) -> str:
    """The configuration text with the user's card added under `[[rates."model"]]`; what was there stays, and of two
    cards from the same instant the later one in the file wins."""
    rows = [f"{_toml_key('provider')} = {_quoted(card.provider)}"] if card.provider else []
    if card.valid_from is not None:
        rows.append(f"from = {card.valid_from.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    rows += [f"{_toml_key(kind)} = {_quoted(format(rate.usd, 'f'))}" for kind, rate in card.rates.items()]
    # A single table of this model becomes the first of several, which TOML writes with double brackets.
    names = "|".join({re.escape(_quoted(card.model)), re.escape(f"'{card.model}'"), re.escape(_toml_key(card.model))})
    text = re.sub(rf"(?m)^([ \t]*)\[[ \t]*rates[ \t]*\.[ \t]*({names})[ \t]*\]", r"\1[[rates.\2]]", text)
    head = text.rstrip("\n") + "\n\n" if text.strip() else ""
    return f"{head}[[rates.{_quoted(card.model)}]]\n" + "\n".join(rows) + "\n"


def _cards(model: str, rows: object, where: str) -> Iterable[RateCard]:
    listed = rows if isinstance(rows, list) else [rows]
    for row in listed:
        if not isinstance(row, dict):
            raise ConfigError(f"[rates.{model!r}] in {where} must be a table of rates.")
        yield _card(model, row, f"[rates.{model!r}] in {where}")


def _card(model: str, row: dict[str, Any], where: str) -> RateCard:
    unknown = [key for key in row if key not in RATE_KEYS and not is_kind(key)]
    if unknown:
        _known({unknown[0]: None}, (*RATE_KEYS, "input", "output", "cache_read", "cache_write", "reasoning"), where)
    usd = {key: _decimal(value, key, where) for key, value in row.items() if key not in RATE_KEYS}
    try:
        provider = provider_id(str(row["provider"])) if row.get("provider") else ""
        since, until = (_instant(row.get(key), where) for key in ("from", "to"))
        return user_card(model, usd, provider=provider, since=since, until=until, note=str(row.get("note", "")))
    except InputError as error:
        raise ConfigError(f"{where}: {error}") from None


def _decimal(value: object, key: str, where: str) -> Decimal:
    # TOML floats are read by their shortest text, which is what the user wrote.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{key} in {where} must be a number of dollars.")
    try:
        return Decimal(str(value).replace("_", ""))
    except InvalidOperation:
        raise ConfigError(f"{key} in {where} is {value!r}, which is not a number of dollars.") from None


def _instant(value: object, where: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        try:
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        except OverflowError:
            raise ConfigError(f"{value} in {where} is outside the calendar.") from None
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, str):
        try:
            return _instant(datetime.fromisoformat(value), where)
        except ValueError:
            pass
    raise ConfigError(f"{value!r} in {where} is not a date.", todo="Write from = 2026-11-01.")


def _check_zone(name: str | None, where: str) -> None:
    if name:
        try:
            zone(name)
        except InputError as error:
            raise ConfigError(f"{where}: {error}") from None


def _known(table: Mapping[str, object], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            import difflib

            near = difflib.get_close_matches(key, allowed, 1, 0.3)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(allowed)}."
            raise ConfigError(f"Unknown key {key!r} in {where}.", todo=hint)


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
