"""App: the dashboard as an ASGI application. It finds the view, asks it off the event loop, and turns whatever is wrong
into a page that says so."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from tallystick.catalog.catalog import Catalog
from tallystick.dashboard.answers import as_csv, as_json
from tallystick.dashboard.asked import Asked, read_asked
from tallystick.dashboard.assets import PREFIX, Assets
from tallystick.dashboard.http import (
    JSON,
    Gone,
    Receive,
    Reply,
    Scope,
    Send,
    fields_of,
    give,
    local,
    names_of,
    onward,
    read_form,
)
from tallystick.dashboard.room import Memo, Missing, Page, Room, View
from tallystick.dashboard.views import VIEWS
from tallystick.errors import ConflictError, InputError, LedgerError, TallyError
from tallystick.ledger.ledger import Ledger

if TYPE_CHECKING:
    from tallystick.dashboard.pages import Pages

AT_ONCE: Final = 4
"""So many pages are made at a time; the others wait, so that calls keep most of the threads."""

LOGIN: Final = "/login"
COOKIE: Final = "tally_token"
"""The cookie in which a browser bears the token; the gateway lets in whoever has it."""

KEY_BYTES: Final = 32
_DAY: Final = 86_400
_WRONG_TOKEN_SECONDS: Final = 0.5


class Denied(TallyError):
    """A form that does not come from a page of ours, or changes what must only be read: a 403."""


class Dashboard:
    """The application. `flights` is the folder of the calls in flight beside the ledger, `token` gives what has to be
    entered before anything is shown (None: nothing), `form_key` is known to our own forms only; processes that serve
    together share it.

    `mounts` are the paths to serve it under; `open_paths` need no token."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Callable[[], Catalog],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        flights: Path | None = None,
        token: Callable[[], str | None] = lambda: None,
        read_only: bool = False,
        form_key: str = "",
    ) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._now = now
        self._flights = flights
        self._token = token
        self._read_only = read_only
        self._form_key = form_key or secrets.token_hex(KEY_BYTES)
        self._memo = Memo()
        self._assets = Assets()
        self._views = {view.path: view for view in VIEWS}
        self._pages: Pages | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)
        paths = (*self._views, LOGIN, PREFIX)
        self.mounts: Mapping[str, Callable[[Scope, Receive, Send], Any]] = dict.fromkeys(paths, self)
        self.open_paths: frozenset[str] = frozenset({LOGIN, *self._assets.replies})

    def warm(self) -> None:
        """Makes ready what the first page would have to wait for. Blocks."""
        self._templates().ready()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        named = names_of(scope)
        try:
            reply = await self._reply(scope, receive, named)
        except Gone:
            return
        except TallyError as error:
            reply = await asyncio.to_thread(self._wrong, error, named)
        await give(send, reply, named, head=scope["method"] == "HEAD")

    async def _reply(self, scope: Scope, receive: Receive, named: Mapping[str, str]) -> Reply:
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST"):
            return Reply(405, b"Use GET.", "text/plain", ((b"allow", b"GET, HEAD, POST"),))
        found = self._assets.reply(path)
        if found is not None:
            return found
        pairs = fields_of(scope["query_string"])
        if path == LOGIN:
            return await self._login(scope, receive, named, dict(pairs))
        view, item = self._find(scope)
        if method == "POST":
            return await self._act(view, item, receive, named)
        async with self._turns:
            return await asyncio.to_thread(self._show, view, item, pairs)

    def _find(self, scope: Scope) -> tuple[View, str]:
        """The view of a path and the name of what lies below it. Raises Missing."""
        raw: bytes | None = scope.get("raw_path")
        path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
        first, *rest = path.removeprefix("/").split("/")
        view = self._views.get(f"/{first}")
        item = unquote(rest[0]) if rest and rest[0] else ""
        if view is None or len(rest) > 1 or (view.item is None if item else view.show is None):
            raise Missing("There is no such page.", todo="The navigation lists those that are there.")
        return view, item

    def _room(self) -> Room:
        return Room(
            ledger=self._ledger,
            catalog=self._catalog,
            now=self._now(),
            flights=self._flights,
            tz=self._ledger.zone,
            read_only=self._read_only,
            form_key=self._form_key,
            memo=self._memo,
        )

    def _show(self, view: View, item: str, pairs: list[tuple[str, str]]) -> Reply:
        room = self._room()
        path = f"{view.path.rstrip('/')}/{quote(item, safe='')}" if item else view.path
        asked = read_asked(path, pairs, room.now, room.tz, own=view.own, defaults=view.defaults)
        try:
            page = _answered(view, item, room, asked)
        except (RecursionError, OverflowError):
            raise InputError("The question holds something too deep or too large to be worked out.") from None
        if asked.format == "csv":
            return as_csv(page, item or view.path.strip("/") or "now")
        if asked.format == "json":
            return as_json(page, asked)
        live = view.live if page.live is None else page.live
        shown = {"asked": asked, "view": view, "title": page.title or view.title, "live": live, **page.data}
        return Reply(200, self._fill(page.template, room, **shown))

    def _fill(self, template: str, room: Room, **values: Any) -> bytes:
        return self._templates().fill(template, room, guarded=self._token() is not None, **values)

    def _templates(self) -> Pages:
        if self._pages is None:
            # Templates are not needed to be ready for the first call.
            from tallystick.dashboard.pages import Pages

            self._pages = Pages(self._assets.urls, VIEWS)
        return self._pages

    async def _act(self, view: View, item: str, receive: Receive, named: Mapping[str, str]) -> Reply:
        """Does what a form says. Raises Denied, InputError."""
        form = await self._form(receive, named)
        if self._read_only:
            raise Denied("This dashboard only reads.", money="Nothing was changed.", todo="Start it: tally up.")
        if view.act is None:
            raise Missing("There is nothing to change here.", money="Nothing was changed.")
        async with self._turns:
            return onward(local(await asyncio.to_thread(view.act, self._room(), item, form)))

    async def _form(self, receive: Receive, named: Mapping[str, str]) -> dict[str, str]:
        """The fields of a form that one of our own pages sent. Raises Denied."""
        origin, site = named.get("origin"), named.get("sec-fetch-site", "same-origin")
        if (origin is not None and urlsplit(origin).netloc != named.get("host")) or site not in ("same-origin", "none"):
            raise Denied("Forms of other pages are not taken.", money="Nothing was changed.")
        form = await read_form(receive, named)
        if not hmac.compare_digest(form.pop("form_key", "").encode(), self._form_key.encode()):
            raise Denied("This form is out of date.", money="Nothing was changed.", todo="Load the page again.")
        return form

    async def _login(self, scope: Scope, receive: Receive, named: Mapping[str, str], asked: Mapping[str, str]) -> Reply:
        """The page where the token is entered, and what becomes of it."""
        token, then = self._token(), local(asked.get("next", "/"))
        if token is None:
            return onward("/")
        wrong = False
        if scope["method"] == "POST":
            form = await self._form(receive, named)
            if "leave" in form:
                return onward(LOGIN, (b"set-cookie", _cookie("", 0, secure=scope.get("scheme") == "https")))
            then = local(form.get("next", "/"))
            if hmac.compare_digest(form.get("token", "").strip().encode(), token.encode()):
                return onward(then, (b"set-cookie", _cookie(token, 30 * _DAY, secure=scope.get("scheme") == "https")))
            wrong = True
            # Whoever tries one token after the other has to be patient.
            await asyncio.sleep(_WRONG_TOKEN_SECONDS)
        room = self._room()
        body = await asyncio.to_thread(self._fill, "login.html", room, title="Sign in", then=then, wrong=wrong)
        return Reply(403 if wrong else 200, body, cache=b"no-store")

    def _wrong(self, error: TallyError, named: Mapping[str, str]) -> Reply:
        """What is wrong, as a page, or as JSON for a program."""
        status = _status(error)
        if "text/html" not in named.get("accept", ""):
            from msgspec.json import encode

            said = {"type": type(error).__name__, "message": str(error), "what": error.what}
            body = {"error": {**said, "money": error.money or None, "todo": error.todo or None}}
            return Reply(status, encode(body), JSON, cache=b"no-store")
        try:
            zone = self._ledger.zone
        except LedgerError:
            zone = "UTC"
        room = Room(ledger=self._ledger, catalog=self._catalog, now=self._now(), tz=zone)
        page = self._fill("error.html", room, error=error, status=status, title=_TITLES.get(status, "Not now"))
        return Reply(status, page, cache=b"no-store")


_TITLES: Final = {400: "That question makes no sense", 403: "Refused", 404: "Nothing here", 409: "Already decided"}


def _answered(view: View, item: str, room: Room, asked: Asked) -> Page:
    if item:
        assert view.item is not None
        return view.item(room, asked, item)
    assert view.show is not None
    return view.show(room, asked)


def _status(error: TallyError) -> int:
    if isinstance(error, Missing):
        return 404
    if isinstance(error, Denied):
        return 403
    if isinstance(error, ConflictError):
        return 409
    return 400 if isinstance(error, InputError) else 503


def _cookie(value: str, seconds: int, *, secure: bool) -> bytes:
    jar: SimpleCookie = SimpleCookie()
    jar[COOKIE] = value
    for name, setting in (("path", "/"), ("max-age", seconds), ("httponly", True), ("samesite", "Strict")):
        jar[COOKIE][name] = setting
    if secure:
        jar[COOKIE]["secure"] = True
    return jar[COOKIE].OutputString().encode("ascii")
