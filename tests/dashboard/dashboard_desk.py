"""What the tests of the dashboard share: calls to fill a ledger with, and a browser without a window."""

import asyncio
import gzip
import html
import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlencode

from tallystick.core.attribution import Tags
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.defaults import catalog
from tallystick.ledger.entry import Entry

NOW = datetime(2026, 11, 18, 15, 7, 30, tzinfo=UTC)
KEY = "a-form-key"
MODELS = (("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5"))


def entry(number, at, model="gpt-4o", provider="openai", **fields):
    """A priced call."""
    usage = fields.pop("usage", Usage(input=1000 + number, output=100))
    if "cost" not in fields:
        fields["cost"] = price(usage, catalog().card_at(model, provider, at)[0], at=at)
    tags = Tags(fields.pop("tags", {}))
    return Entry(
        call_id=f"call-{number}", started_at=at, provider=provider, model=model, usage=usage, tags=tags, **fields
    )


def month_of_calls(count=120, now=NOW):
    """Calls of some 40 days, the last one a minute ago."""
    found = []
    for number in range(count):
        provider, model = MODELS[number % 3]
        tags = {"team": f"team-{number % 4}", "user": f"user-{number % 7}", "env": "prod" if number % 5 else "test"}
        at = now - timedelta(minutes=1) - timedelta(hours=8 * number)
        found.append(entry(number, at, model, provider, tags=tags, run_id=f"run-{number // 6}"))
    return found


def filled(ledger, entries):
    """The ledger with these calls in it."""
    entries = list(entries)
    if entries:
        ledger.append(entries)
    return ledger


class Answer:
    """What came back."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        self.size = len(body)

    @property
    def html(self):
        return self.body.decode()

    @property
    def text(self):
        """What a person reads."""
        bare = re.sub(r"<(script|title|template)\b.*?</\1>", " ", self.html, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())

    @property
    def json(self):
        return json.loads(self.body)

    def links(self, holding=""):
        """Where the page leads."""
        found = [html.unescape(one) for one in re.findall(r'href="([^"]*)"', self.html)]
        return [one for one in found if holding in one]


class Browser:
    """Asks an ASGI application."""

    def __init__(self, app):
        self.app = app

    def ask(self, method, url, headers=None, body=b""):
        path, _, query = url.partition("?")
        named = {"host": "127.0.0.1:4100", "accept": "text/html", **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "scheme": "http",
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in named.items()],
        }
        told = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            told.append(message)

        asyncio.run(self.app(scope, receive, send))
        return Answer(
            told[0]["status"],
            {name.decode(): value.decode("latin-1") for name, value in told[0]["headers"]},
            b"".join(one.get("body", b"") for one in told[1:]),
        )

    def get(self, url, **headers):
        return self.ask("GET", url, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, url, form, **headers):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", url, {**kind, **named}, urlencode(form).encode())
