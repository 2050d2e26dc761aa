"""Pictures of a report: drawn without a network, and safe to open whatever the names in a ledger are."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from report_samples import NOW, call

from tallystick.cli import run
from tallystick.errors import ConfigError, InputError
from tallystick.insight.charts import MOST_SERIES, REST
from tallystick.insight.report import report
from tallystick.ledger.memory import MemoryLedger

SOURCE = Path(__file__).resolve().parents[2] / "src"
DOLLAR = 10**12


@pytest.fixture
def filled():
    entries = [
        call(1, NOW, DOLLAR, tags={"user": "</script><script>alert(1)</script>"}),
        call(2, NOW - timedelta(days=3), 2 * DOLLAR, tags={"user": "bob"}),
        call(3, NOW, None, tags={"user": "nobody knows"}),
    ]
    with MemoryLedger("UTC") as ledger:
        ledger.append(entries)
        yield ledger


def values(chart):
    return json.loads(chart.to_json())["data"]["values"]


def test_bars_are_what_the_rows_say(filled):
    pytest.importorskip("altair")
    drawn = report(filled, per="day", by=["user"]).chart()
    points = {(point["when"], point["group"]): point["usd"] for point in values(drawn)}
    assert points == {("2026-11-18", "bob"): 2.0, ("2026-11-21", "</script><script>alert(1)</script>"): 1.0}
    spec = json.loads(drawn.to_json())
    assert spec["encoding"]["x"]["scale"]["domain"] == ["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"]
    assert "1 call without a price" in spec["title"]["subtitle"][0]


def test_every_way_of_splitting_can_be_drawn(filled):
    pytest.importorskip("altair")
    for per in (None, "hour", "day", "week", "month", "year", "block", "run"):
        assert values(report(filled, per=per).chart())
    with MemoryLedger("UTC") as empty:
        assert values(report(empty, per="day").chart()) == []


def test_what_a_subscription_covers_is_a_panel_of_its_own(filled):
    pytest.importorskip("altair")
    filled.append([call(9, owed=False, pico=5 * DOLLAR)])
    spec = json.loads(report(filled, per="day").chart().to_json())
    assert spec["encoding"]["row"]["field"] == "bill"
    assert any("API-equivalent, not a bill: $5.00" in line for line in spec["title"]["subtitle"])


def test_many_groups_become_others():
    pytest.importorskip("altair")
    with MemoryLedger("UTC") as ledger:
        ledger.append([call(number, pico=number * DOLLAR, tags={"user": f"u{number}"}) for number in range(1, 31)])
        points = values(report(ledger, by=["user"]).chart())
    groups = {point["group"]: point["usd"] for point in points}
    assert len(groups) == MOST_SERIES + 1
    assert sum(groups.values()) == pytest.approx(sum(range(1, 31)))
    assert groups[REST] == pytest.approx(sum(range(1, 21)))


def test_files(filled, tmp_path):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    found = report(filled, per="day", by=["user"])
    sizes = {name: found.save_chart(tmp_path / f"spend.{name}") for name in ("png", "svg", "html")}
    assert all(size == (tmp_path / f"spend.{name}").stat().st_size for name, size in sizes.items())
    assert (tmp_path / "spend.png").read_bytes().startswith(b"\x89PNG")
    assert "<script" not in (tmp_path / "spend.svg").read_text()
    page = (tmp_path / "spend.html").read_text()
    # Nothing is loaded from anywhere, nothing may be, and a name cannot end the script it stands in.
    assert page.count("<script>") == page.count("</script>") == 2
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"\b(?:src|href)=|url\(|@import", outside) == []
    assert "default-src 'none'" in page
    assert "connect-src 'none'" in page
    assert "alert(1)</script>" not in page
    with pytest.raises(InputError, match=r"\.png, \.svg, \.html"):
        found.save_chart(tmp_path / "spend.pdf")
    with pytest.raises(InputError, match="cannot be written"):
        found.save_chart(tmp_path / "no" / "spend.svg")


def test_without_the_extra_it_says_what_to_install(filled, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(ConfigError, match=r"tallystick\[charts\]"):
        report(filled).chart()


def test_the_command(capsys, tmp_path, rates):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    assert run(["record", "model-a", "--input", "1000"]) == 0
    capsys.readouterr()
    assert run(["chart", "--out", str(tmp_path / "x.svg"), "--by", "model"]) == 0
    assert "$0.002 for 1 call." in capsys.readouterr().out
    assert run(["chart", "--out", str(tmp_path / "x.svg"), "--per", "day", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calls"] == 1
    assert run(["chart", "--out", str(tmp_path / "x.gif")]) == 2
    assert run(["chart"]) == 2


def test_nothing_is_asked_of_the_network(filled, tmp_path):
    """In a process whose sockets are shut every picture is drawn all the same."""
    pytest.importorskip("vl_convert")
    code = """
import socket, sys
def shut(*args, **named):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = shut
from tallystick.cli import run
for name in ("png", "svg", "html"):
    assert run(["chart", "--out", sys.argv[1] + "." + name]) == 0
"""
    env = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=True, env=env, capture_output=True)
    assert (tmp_path / "x.html").stat().st_size > 100_000
