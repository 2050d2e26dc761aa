"""Every page in a real browser: it shows what the ledger says, moves with the calls, stays usable for everybody, and
lets nothing in from elsewhere."""

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import openai
import pytest
from pages_ledger import HELD

from tallystick.core.money import Money
from tallystick.dashboard.figures import dollars
from tallystick.dashboard.views import VIEWS
from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
PATHS = [view.path for view in VIEWS if view.show is not None]
WIDE, NARROW = 1280, 390
SENT = "performance.getEntries().reduce((sum, one) => sum + (one.transferSize || 0), 0)"
PLAYED = "window.told = {}; window.EventSource = class { addEventListener(kind, act) { window.told[kind] = act; } close() {} };"
FLYING = (
    "document.querySelector(\"[data-sse='flights.count']\").textContent === '1'"
    " && /^\\$0\\.\\d*[1-9]/.test(document.querySelector(\"[data-sse='flights.cost']\").textContent)"
    " && document.querySelector(\"[data-sse='flights.cost']\").textContent"
)
LISTED = "document.querySelector('nav[aria-label=Views]')"


def visit(page, stand, path):
    """Goes to a page that has to be there and in order; gives its text."""
    page.faults.clear()
    page.requests.clear()
    assert page.goto(stand.url + path) == 200
    assert [url for url in page.requests if not url.startswith((stand.url, "data:"))] == []
    assert page.faults == []
    return page.text("main")


def items(stand):
    """The pages of one run and of one call."""
    run = stand.get("/tally/v1/runs")["runs"][0]["group"]["run"]
    call = stand.get("/tally/v1/calls?limit=1")["calls"][0]["call_id"]
    return [f"/runs/{quote(run, safe='')}", f"/calls/{quote(call, safe='')}"]


@pytest.mark.parametrize("path", [*PATHS, "run and call"])
def test_a_page_is_in_order_wide_and_narrow_light_and_dark(browser, stand, path):
    crowded = stand("crowded")
    with browser.page(wide=WIDE) as page:
        for place in [path] if path in PATHS else items(crowded):
            visit(page, crowded, place)
            assert page.axe() == []
            page.scheme(dark=True)
            assert page.axe(["color-contrast"]) == []
            page.resize(NARROW, 800)
            assert page.run("document.documentElement.scrollWidth") <= NARROW
            assert page.faults == []
            page.scheme(dark=False)
            page.resize(WIDE, 900)


def test_pages_show_what_the_interface_says(browser, stand):
    crowded = stand("crowded")
    since = crowded.get("/spend?period=30d&format=json")["asked"]["since"]
    total = crowded.get(f"/tally/v1/spend?since={since}")["total"]
    amount = dollars(Money.from_json(total["cost"]))
    with browser.page() as page:
        assert amount in visit(page, crowded, "/spend?period=30d")
        told = crowded.get("/tally/v1/runs?limit=3&since=7d")["runs"]
        shown = visit(page, crowded, "/runs?period=7d")
        assert told[0]["group"]["run"] in shown
        month = crowded.budgets()["everything"]["accounts"][0]
        shown = visit(page, crowded, "/budgets")
        assert dollars(Money.from_json(month["left"])) in shown
        assert HELD in shown
        assert "Thresholds passed" in shown
        rows = crowded.get("/models?format=json")["rows"]
        shown = visit(page, crowded, "/models")
        assert [row["model"] for row in rows if row["model"] not in shown] == []


def test_a_stream_moves_the_page_while_it_runs_and_when_it_ends(browser, alone):
    stand = alone(Answer(output_tokens=60, chunk_ms=60))
    with browser.page() as page, ThreadPoolExecutor() as pool:
        visit(page, stand, "/")
        page.until("document.querySelector('[data-pulse]').dataset.pulse === 'on'")
        assert page.text("[data-sse='flights.count']") == "0"
        ended = pool.submit(stream, stand.openai)
        page.until("document.querySelector(\"[data-sse='flights.count']\").textContent === '1'")
        first = page.until("Number(document.querySelector(\"[data-sse='flights.output']\").textContent)")
        page.until(f"Number(document.querySelector(\"[data-sse='flights.output']\").textContent) > {first}")
        cost = page.until(FLYING)
        page.until(f"({FLYING}) && ({FLYING}) !== {cost!r}")
        assert ended.result(30)
        page.until("document.querySelector(\"[data-sse='flights.count']\").textContent === '0'")
        (call,) = stand.get("/tally/v1/calls")["calls"]
        amount = dollars(Money.from_json(call["cost"]["amount"]))
        page.until(f"document.querySelector(\"[data-live='today']\").innerText.includes('{amount}')")
        assert page.faults == []


def stream(base):
    with openai.OpenAI(base_url=base, api_key="sk-own", max_retries=0) as client:
        return list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))


def test_what_was_picked_survives_a_reload_and_the_way_back(browser, stand):
    crowded = stand("crowded")
    with browser.page() as page:
        visit(page, crowded, "/spend?period=90d")
        page.onward(lambda: page.run("void document.querySelector('nav[aria-label=Period] a[href*=\"7d\"]').click()"))
        first = page.run("location.search")
        page.click("details.pick summary")
        page.fill("details.pick input[name=team]", "search")
        page.onward(lambda: page.press("Enter"))
        picked = parse_qs(page.run("location.search.slice(1)"))
        assert (picked["team"], picked["period"]) == (["search"], ["7d"])
        assert "search" in page.text(".chips")
        shown = page.text("main")
        page.reload()
        assert page.text("main") == shown
        page.back()
        assert page.run("location.search") == first
        assert "search" not in page.text(".chips")


def test_the_keyboard_reaches_everything_in_order(browser, stand):
    with browser.page() as page:
        visit(page, stand("crowded"), "/spend")
        page.press("Tab")
        assert page.run("document.activeElement.className") == "skip"
        assert page.run("document.activeElement.getBoundingClientRect().top >= 0")
        page.press("Tab")
        page.press("Tab")
        assert page.run(f"{LISTED}.contains(document.activeElement)")
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert page.text("nav[aria-label=Views] [aria-current=page]") == "Spend"
        seen = []
        for _ in range(120):
            page.press("Tab")
            seen.append(page.run("document.activeElement.closest('main, header')?.tagName ?? ''"))
            if seen[-1] == "":
                break
        assert "MAIN" in seen
        assert "HEADER" not in seen[seen.index("MAIN") :]
        page.run("document.activeElement.blur()")
        page.goto(page.run("location.href"))
        page.press("Tab")
        page.press("Enter")
        assert page.run("location.hash") == "#main"
        page.press("Tab")
        assert page.run("document.querySelector('main').contains(document.activeElement)")


def test_the_scheme_that_was_chosen_is_kept(browser, stand):
    with browser.page() as page:
        visit(page, stand("crowded"), "/budgets")
        light = page.run("getComputedStyle(document.body).backgroundColor")
        while page.run("document.documentElement.dataset.theme") != "dark":
            page.click("[data-theme-toggle]")
        dark = page.run("getComputedStyle(document.body).backgroundColor")
        page.reload()
        assert page.run("getComputedStyle(document.body).backgroundColor") == dark != light


def test_without_scripts_the_figures_are_there_all_the_same(browser, stand):
    crowded = stand("crowded")
    with browser.page(scripts=False) as page:
        for path in PATHS:
            assert page.goto(crowded.url + path) == 200
            assert page.count("main svg, main table, main .figure") > 0


@pytest.mark.parametrize("kind", ["empty", "one", "unpriced"])
def test_odd_ledgers_have_pages_too(browser, stand, kind):
    odd = stand(kind)
    with browser.page() as page:
        for path in PATHS:
            shown = visit(page, odd, path)
            if kind == "unpriced" and path in ("/spend", "/models"):
                assert "unknown" in shown
            assert page.run("document.documentElement.scrollWidth") <= WIDE


def test_pages_over_postgresql_show_the_same(browser, stand):
    there = stand("one", place="postgres")
    with browser.page() as page:
        for path in PATHS:
            visit(page, there, path)
        (row,) = there.get("/spend?format=json")["rows"]
        assert row["calls"] == 1
        assert dollars(Money.from_json(row["cost"])) in visit(page, there, "/spend")


def test_a_page_is_small_and_smaller_the_second_time(browser, stand):
    crowded = stand("crowded")
    for path in [*PATHS, *items(crowded)]:
        with browser.page() as page:
            visit(page, crowded, path)
            assert page.run(SENT) <= 300_000
            assert page.run("performance.getEntriesByType('navigation')[0].encodedBodySize") < 60_000
            visit(page, crowded, path)
            assert page.run(SENT) <= 50_000


def test_dollars_are_rounded_as_the_server_rounds_them(browser, stand):
    """The stream of events is played by the test, so that it can say what it likes."""
    amounts = ["0.00125", "0.00135", "1.005", "1.015", "-2.345", "1234567.885", "0.000000000001", "0", "0.0123"]
    with browser.page() as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", {"source": PLAYED})
        visit(page, stand("one"), "/")
        for amount in amounts:
            told = {"minute": {"cost": {"usd": amount}, "calls": 1}}
            page.run(f"window.told.spend({{data: JSON.stringify({told!r})}})")
            assert page.text("[data-sse='minute.cost']") == dollars(Money.usd(amount)), amount
        assert page.text("[data-sse='minute.calls']") == "1 call"


def test_signing_in_is_a_page_like_the_others(browser, stand, tmp_path):
    (tmp_path / "token").write_text("a-token-of-many-characters-0123456789")
    (tmp_path / "token").chmod(0o600)
    guarded = stand("one", "--token-file", str(tmp_path / "token"))
    with browser.page() as page:
        assert page.goto(guarded.url + "/spend") in (200, 401, 403)
        assert page.run("location.pathname") == "/login"
        assert page.axe() == []
        page.fill("input[name=token]", "not-this-one")
        page.onward(lambda: page.press("Enter"))
        assert "That is not the token." in page.text("main")
        page.fill("input[name=token]", "a-token-of-many-characters-0123456789")
        page.onward(lambda: page.press("Enter"))
        assert page.run("location.pathname") == "/spend"
        assert page.run("document.cookie") == ""


def test_names_with_markup_in_them_stay_text(browser, stand):
    odd = stand("nasty")
    with browser.page() as page:
        for path in [
            *PATHS,
            *items(odd),
            "/spend?by=tag.team",
            "/spend?by=user",
            f"/spend?team={quote('<img src=x>')}",
        ]:
            visit(page, odd, path)
            assert page.count("main img, main script") == 0
            assert page.run("window.broken") is None
            assert "{{7*7}}" not in page.run("document.title")
        assert "<img src=x" in page.text("main") or "<img src=x" in visit(page, odd, "/models")


def test_a_budget_made_on_the_page_stops_the_next_call(browser, alone):
    stand = alone(Answer(output_tokens=60))
    with browser.page() as page, openai.OpenAI(base_url=stand.openai, api_key="sk-own", max_retries=0) as client:
        ask = {"model": "gpt-4o", "messages": HELLO}
        assert client.chat.completions.create(**ask).choices
        visit(page, stand, "/budgets")
        page.fill("#new input[name=name]", "tiny")
        page.fill("#new input[name=limit]", "$0.0000001/day")
        page.onward(lambda: page.click("#new button"))
        assert "tiny limits calls from now on." in page.text("main")
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**ask)
        assert "Budget tiny" in str(refused.value)
        page.click("details summary")
        page.fill("input[aria-label='Raise tiny by']", "$5")
        page.onward(lambda: page.press("Enter"))
        assert "tiny is raised." in page.text("main")
        assert client.chat.completions.create(**ask).choices
        page.click("details summary")
        page.onward(lambda: page.click("form:has(input[value=pause]) button"))
        assert stand.budgets()["tiny"]["paused"] is True
        assert page.faults == []


def test_a_dashboard_that_only_reads_has_no_forms(browser, stand):
    reading = stand("one", "--read-only")
    with browser.page() as page:
        visit(page, reading, "/budgets")
        assert page.count("main form[method=post]") == 0
    answer = httpx.post(f"{reading.url}/budgets", data={"do": "create", "name": "x", "limit": "$1"})
    assert answer.status_code == 403
    assert reading.budgets() == {}


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A page of somebody else that sends a form to ours as soon as it is opened."""

    target = ""

    def do_GET(self):
        body = (
            f"<!doctype html><title>x</title><form method=post action='{self.target}/budgets'>"
            "<input name=do value=create><input name=name value=evil><input name=limit value='$1'></form>"
            "<script>document.forms[0].submit()</script>"
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_form_of_another_page_changes_nothing(browser, stand, host):
    crowded = stand("crowded")
    before = crowded.budgets()
    handler = type("Here", (Elsewhere,), {"target": crowded.url})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser.page() as page:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page.call("Page.navigate", {"url": f"http://{host}:{server.server_port}/"})
            page.until(f"location.host === '{urlsplit(crowded.url).netloc}'")
            assert page.answers[f"{crowded.url}/budgets"] == 403
        finally:
            server.shutdown()
            thread.join()
    assert crowded.budgets() == before
