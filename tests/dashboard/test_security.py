"""Who may look, what a page may load, and that text from elsewhere stays text."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from dashboard_desk import NOW, Browser, entry, month_of_calls

import tallystick.dashboard.app as dashboard_app
from tallystick.dashboard.app import Dashboard
from tallystick.dashboard.http import POLICY, local
from tallystick.dashboard.room import View
from tallystick.dashboard.views import VIEWS
from tallystick.defaults import catalog
from tallystick.errors import InputError
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger

TOKEN = 'a token; of "odd" characters, 32 long'
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
CHANGED = []


def _act(room, item, form):
    if form.get("bad"):
        raise InputError("That makes no sense.", money="Nothing was changed.")
    CHANGED.append((item, dict(form)))
    return form.get("then", "/budgets")


@pytest.fixture
def changing(monkeypatch):
    """A dashboard with a view that changes something."""
    CHANGED.clear()
    view = View(path="/changes", title="Changes", show=VIEWS[0].show, act=_act)
    monkeypatch.setattr(dashboard_app, "VIEWS", (*VIEWS, view))
    return lambda **options: Browser(Dashboard(MemoryLedger(), catalog, form_key="a-key", **options))


def test_every_answer_is_protected(browse):
    browser = browse(token=lambda: TOKEN)
    answers = [browser.get(path) for path in ("/", "/nope", "/login", "/spend?period=x", "/spend?format=csv")]
    answers += [browser.get(browser.get("/").links("/static/")[0]), browser.post("/login", {})]
    for one in answers:
        assert one.headers["content-security-policy"] == POLICY
        assert (one.headers["x-content-type-options"], one.headers["x-frame-options"]) == ("nosniff", "DENY")
        assert one.headers["referrer-policy"] == "same-origin"
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")


@pytest.mark.parametrize("place", ["model", "team", "tag", "run", "user"])
def test_text_from_elsewhere_stays_text(browse, place):
    fields = {"model": {"model": EVIL, "cost": None}, "run": {"run_id": EVIL}}.get(place, {})
    tags = {} if place in ("model", "run") else {"x" if place == "tag" else place: EVIL}
    browser = browse([entry(number, NOW, tags=tags, **fields) for number in range(3)], now=lambda: NOW)
    for path in (
        "/",
        "/spend",
        "/spend?by=team",
        "/spend?by=tag.x",
        "/spend?by=user",
        "/calls/call-1",
        "/runs",
        "/tokens",
        "/models",
        "/quality",
        f"/spend?{urlencode({place if place != 'tag' else 'tag.x': EVIL})}",
    ):
        page = browser.get(path)
        assert page.status == 200, path
        assert "<script>alert" not in page.html
        assert "<img src=x" not in page.html
        assert not re.search(r"<[a-z]+[^>]*\sonerror=", re.sub(r'"[^"]*"', '""', page.html))


def test_characters_nobody_sees_are_taken_out(browse):
    told = "gpt\x1b[31m\u202e\u0007evil"
    page = browse([entry(1, NOW, model=told, cost=None)], now=lambda: NOW).get("/")
    assert "gpt[31mevil" in page.text
    assert not {"\x1b", "\u202e", "\x07"} & set(page.html)


def test_links_to_foreign_places_are_not_followed():
    for odd in (
        "//evil",
        "/\\evil",
        "https://evil",
        "javascript:alert(1)",
        "evil",
        "/a b",
        "/a\nb",
        "/\u00e4",
        "",
        "/a\\b",
    ):
        assert local(odd) == "/"
    assert local("/spend?by=model&x=%20") == "/spend?by=model&x=%20"


def test_signing_in_and_out(browse):
    browser = browse(token=lambda: TOKEN)
    page = browser.get(f"/login?next={quote('/spend?by=team', safe='')}")
    key = re.search(r'name="form_key" value="([^"]+)"', page.html)[1]
    assert 'name="next" value="/spend?by=team"' in page.html
    assert TOKEN not in page.html
    wrong = browser.post("/login", {"form_key": key, "token": "nearly", "next": "/"})
    assert (wrong.status, "That is not the token." in wrong.text, "set-cookie" in wrong.headers) == (403, True, False)
    right = browser.post("/login", {"form_key": key, "token": TOKEN, "next": "/spend?by=team"})
    assert (right.status, right.headers["location"]) == (303, "/spend?by=team")
    cookie = right.headers["set-cookie"]
    assert all(part in cookie for part in ("tally_token=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="))
    from tallystick.gateway.credentials import bears

    assert bears(TOKEN, {"cookie": cookie.split("; HttpOnly")[0]})
    foreign = browser.post("/login", {"form_key": key, "token": TOKEN, "next": "//evil.example"})
    assert foreign.headers["location"] == "/"
    out = browser.post("/login", {"form_key": key, "leave": "1"})
    assert (out.headers["location"], "Max-Age=0" in out.headers["set-cookie"]) == ("/login", True)


def test_without_a_token_there_is_nothing_to_sign_in_to(browse):
    answer = browse().get("/login")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert "Sign out" not in browse().get("/").text
    assert "Sign out" in browse(token=lambda: TOKEN).get("/").text


def test_forms_are_taken_from_our_own_pages_only(changing):
    browser = changing()
    good = {"form_key": "a-key", "name": "x", "then": "/budgets?x=1"}
    own = {"origin": "http://127.0.0.1:4100", "sec_fetch_site": "same-origin"}
    for form, headers in (
        ({**good, "form_key": "another"}, own),
        ({"name": "x"}, own),
        (good, {**own, "origin": "http://evil.example"}),
        (good, {**own, "origin": "null"}),
        (good, {**own, "sec_fetch_site": "same-site"}),
        (good, {**own, "sec_fetch_site": "cross-site"}),
    ):
        answer = browser.post("/changes", form, **headers)
        assert (answer.status, "Nothing was changed." in answer.text) == (403, True)
    assert browser.post("/changes", good, **{**own, "content_type": "application/json"}).status == 400
    assert (
        browser.ask(
            "POST", "/changes", {"content-type": "application/x-www-form-urlencoded"}, b"x=" + b"y" * 70_000
        ).status
        == 400
    )
    assert CHANGED == []
    done = browser.post("/changes", good, **own)
    assert (done.status, done.headers["location"]) == (303, "/budgets?x=1")
    assert CHANGED == [("", {"name": "x", "then": "/budgets?x=1"})]
    assert browser.post("/changes", {**good, "then": "//evil"}, **own).headers["location"] == "/"
    said = browser.post("/changes", {**good, "bad": "1"}, **own)
    assert (said.status, "That makes no sense." in said.text) == (400, True)


def test_what_only_reads_changes_nothing(changing):
    answer = changing(read_only=True).post("/changes", {"form_key": "a-key"})
    assert (answer.status, "only reads" in answer.text, CHANGED) == (403, True, [])


def test_a_view_without_forms_takes_none(changing):
    assert changing().post("/spend", {"form_key": "a-key"}).status == 404


@contextmanager
def up(folder, *options, **more):
    """`tally up` as a process; what it told, and how to ask it."""
    env = {
        **os.environ,
        "TALLY_LEDGER": str(folder / "ledger.db"),
        "PYTHONPATH": str(Path(dashboard_app.__file__).parents[2]),
        **more,
    }
    command = [sys.executable, "-m", "tallystick.cli", "up", "--port", "0", "--json", *options]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        told = json.loads(process.stdout.readline())

        def ask(path, method="GET", body=None, **headers):
            place = told["url"].removeprefix("http://")
            link = http.client.HTTPConnection(place, timeout=20)
            named = {"accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
            link.request(method, path, body, named)
            answer = link.getresponse()
            found = (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read().decode(),
            )
            link.close()
            return found

        try:
            yield ask
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0


def with_calls(folder):
    with SqliteLedger(folder / "ledger.db", zone="UTC") as ledger:
        ledger.append(month_of_calls(12))


def test_tally_up_serves_it_and_tells_programs_what_it_told_before(tmp_path):
    with_calls(tmp_path)
    with up(tmp_path) as ask:
        status, headers, page = ask("/spend?since=2026-11-01&until=2026-11-30")
        assert (status, "gpt-4o" in page, headers["content-security-policy"]) == (200, True, POLICY)
        assert ask("/spend?format=json", accept="*/*")[0] == 200
        status, headers, told = ask("/nonsense/v1/chat", accept="*/*")
        assert (status, "Providers:" in told) == (404, True)
        assert "There is no such page." in ask("/nonsense")[2]
        assert ask("/", host="evil.example")[0] == 403
        assert ask("/", sec_fetch_site="cross-site")[0] == 403
        assert ask("/healthz")[0] == 200
        assert ask("/tally/v1/budgets", accept="*/*")[0] == 200


def test_tally_up_that_only_reads(tmp_path):
    with_calls(tmp_path)
    with up(tmp_path, "--read-only") as ask:
        status, _, page = ask("/")
        assert (status, "read only" in page) == (200, True)


def test_tally_up_with_a_token_shows_nothing_without_it(tmp_path):
    with_calls(tmp_path)
    place = tmp_path / "token"
    place.touch(mode=0o600)
    place.write_text("a-token-of-thirty-two-characters\n")
    with up(tmp_path, "--token-file", str(place)) as ask:
        status, headers, page = ask("/spend?by=team")
        assert (status, headers["location"], page) == (303, "/login?next=%2Fspend%3Fby%3Dteam", "")
        assert ask("/spend", accept="*/*")[0] == 401
        assert ask("/tally/v1/live", accept="text/event-stream")[0] == 401
        status, headers, page = ask(headers["location"])
        assert (status, "Sign in" in page) == (200, True)
        [style] = re.findall(r'stylesheet" href="([^"]+)"', page)
        assert ask(style)[0] == 200
        key = re.search(r'name="form_key" value="([^"]+)"', page)[1]
        form = urlencode({"form_key": key, "token": "a-token-of-thirty-two-characters", "next": "/spend"})
        status, headers, _ = ask("/login", "POST", form, content_type="application/x-www-form-urlencoded")
        assert (status, headers["location"]) == (303, "/spend")
        cookie = headers["set-cookie"].partition(";")[0]
        assert ask("/spend", cookie=cookie)[0] == 200
        assert ask("/spend", cookie="tally_token=nearly")[0] == 303
        assert ask("/spend?tally_token=a-token-of-thirty-two-characters")[0] == 303


def test_workers_that_share_a_port_take_each_others_forms(tmp_path):
    place = tmp_path / "token"
    place.touch(mode=0o600)
    place.write_text("a-token-of-thirty-two-characters\n")
    with up(tmp_path, "--workers", "2", "--token-file", str(place)) as ask:
        keys = {re.search(r'name="form_key" value="([^"]+)"', ask("/login")[2])[1] for _ in range(12)}
    assert len(keys) == 1
