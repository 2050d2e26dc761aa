"""Damaged and hostile reports give a sentence, never a traceback, and never a wrong match."""

import json
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.cli import run
from tallystick.errors import InputError
from tallystick.insight.provider_reports.reading import read_reports

BUCKET = {"object": "bucket", "start_time": 1790812800, "end_time": 1790899200}


def page(result, **bucket):
    return {"object": "page", "data": [{**BUCKET, "results": [result], **bucket}], "has_more": False}


def usage(**fields):
    return page({"object": "organization.usage.completions.result", "model": "m", "input_tokens": 1, **fields})


def cost(value=1, currency="usd", **fields):
    row = {
        "object": "organization.costs.result",
        "amount": {"value": value, "currency": currency},
        "line_item": "m, input",
    }
    return page({**row, **fields})


def anthropic(**fields):
    row = {
        "currency": "USD",
        "amount": "1",
        "model": "m",
        "cost_type": "tokens",
        "token_type": "output_tokens",
        **fields,
    }
    bucket = {"starting_at": "2026-10-01T00:00:00Z", "ending_at": "2026-10-02T00:00:00Z", "results": [row]}
    return {"data": [bucket], "has_more": False}


def raw(value):
    return json.dumps(value)


BAD = {
    "nothing": "",
    "a page of nothing": '{"object": "page", "data": [], "has_more": false}',
    "spaces": " \n ",
    "not JSON": '{"data": [',
    "not a report": '{"data": [{"a": 1}]}',
    "a number": "12",
    "an error of the provider": '{"error": {"message": "invalid key"}}',
    "data is text": '{"data": "none"}',
    "nested too deeply": "[" * 200_000,
    "a long number": '{"data": ' + "9" * 5000 + "}",
    "NaN": raw(cost()).replace('"value": 1', '"value": NaN'),
    "infinity": raw(cost()).replace('"value": 1', '"value": -Infinity'),
    "NaN as text": raw(cost("NaN")),
    "an absurd amount": raw(cost(10**30)),
    "an absurd exponent": raw(cost()).replace('"value": 1', '"value": 1e999999999'),
    "an amount that is true": raw(cost(True)),
    "euros": raw(cost(currency="eur")),
    "a negative count": raw(usage(output_tokens=-1)),
    "half a token": raw(usage(output_tokens=0.5)),
    "an absurd count": raw(usage(output_tokens=2**60)),
    "more cached than input": raw(usage(input_tokens=1, input_cached_tokens=2)),
    "a control character": raw(usage(model="m\x1b[2J")),
    "an overlong model": raw(usage(model="m" * 10_000)),
    "a model that is a list": raw(usage(model=["m"])),
    "a result that is text": raw(page("x")),
    "a bucket that ends first": raw(page({"object": "organization.costs.result"}, end_time=0)),
    "a bucket outside the calendar": raw(page({"object": "organization.costs.result"}, end_time=10**18)),
    "another report of OpenAI": raw(page({"object": "organization.usage.images.result"})),
    "a float in cents": raw(anthropic(amount=1.5)),
    "cents that are no number": raw(anthropic(amount="1,5")),
    "a CSV with other columns": "a,b\n1,2\n",
    "a CSV with a control character": "a\x1b,b\n1,2\n",
    "a day that is none": '{"data": [{"date": "2026-13-01", "model": "m", "usage": 1}]}',
    "a generation without a time": '{"data": {"id": "gen-1", "total_cost": 1}}',
    "a generation of parts": raw({"data": {"id": "g", "total_cost": 1, "created_at": "2026-10-01T00:00:00Z", "native_tokens_cached": 9}}),
}  # fmt: skip


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_report_gives_a_sentence(text, tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_text(text)
    assert run(["reconcile", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tally: ")
    assert "Traceback" not in err
    assert len(err) < 600
    assert "\x1b" not in err


def test_other_bytes_a_folder_and_no_file(tmp_path, capsys):
    (tmp_path / "latin").write_bytes(b"\xff\xfe{\x00")
    for name in ("latin", "", "missing"):
        assert run(["reconcile", str(tmp_path / name)]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_overlapping_buckets_are_refused(tmp_path, capsys):
    one, other = usage(), usage()
    other["data"][0]["start_time"] += 3600
    (tmp_path / "r.json").write_text(raw([one, other]))
    assert run(["reconcile", str(tmp_path / "r.json")]) == 2
    assert "overlap" in capsys.readouterr().err


def test_foreign_names_are_shown_as_text(tmp_path, capsys):
    (tmp_path / "r.json").write_text(raw(usage(model="[red]bold[/red]", project_id="=cmd()")))
    assert run(["reconcile", str(tmp_path / "r.json")]) == 4
    assert "[red]bold[/red]" in capsys.readouterr().out


def test_a_credit_is_negative_money(tmp_path, capsys):
    (tmp_path / "r.json").write_text(raw(cost("-0.25", line_item="credit")))
    assert run(["reconcile", "--json", str(tmp_path / "r.json")]) == 4
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["amount"]["report"] == {"usd": "-0.25"}
    assert (row["state"], row["cause"]) == ("missing here", "fee")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.sampled_from([usage(), cost(), anthropic(), {"data": [{"date": "2026-10-01", "model": "m", "usage": 1}]}]),
    st.data(),
)
def test_any_value_anywhere_is_read_or_refused(report, data):
    report = json.loads(json.dumps(report))
    spot = report
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(spot[key], dict | list) and spot[key] and data.draw(st.booleans()):
            spot = spot[key]
            continue
        spot[key] = data.draw(values)
        break
    try:
        statements = read_reports([("r", json.dumps(report).encode())], zone=ZoneInfo("UTC"))
    except InputError as error:
        assert str(error)
    else:
        assert all(figure.quantity is None or figure.quantity >= 0 for one in statements for figure in one.figures)
