"""rates show, set, check, diff, update."""

import json
import stat
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden_prices.json"


def config_file():
    import os

    return Path(os.environ["XDG_CONFIG_HOME"]) / "tallystick" / "config.toml"


def test_show(tally):
    said = tally("rates", "show", "gpt-4o")
    assert said.code == 0
    assert "$2.50" in said.out
    assert "source: " in said.out
    value = tally("rates", "show", "gpt-4o", "--json").json
    assert value["cards"][0]["rates"]["input"]["usd"] == "2.5"


def test_set_wins_over_the_catalogue_from_its_day(tally):
    assert tally("rates", "set", "gpt-4o", "--input", 1, "--output", 2, "--from", "2026-06-01").code == 0
    assert tally("price", "gpt-4o", "--input", 1_000_000, "--at", "2026-06-01", "--json").json["amount"] == {"usd": "1"}
    assert tally("price", "gpt-4o", "--input", 1_000_000, "--at", "2026-05-31", "--json").json["amount"] == {
        "usd": "2.5"
    }
    assert tally("price", "gpt-4o", "--input", 1, "--at", "2026-06-01", "--json").json["basis"] == "user"
    row = tally("price", "gpt-4o", "--input", 1, "--at", "2026-06-01", "--json").json
    assert row["rate_ids"] == ["openai/gpt-4o@2026-06-01"]


def test_set_again_and_dated(tally):
    def cost(day):
        return tally("price", "mine", "--input", 1_000_000, "--at", day, "--json").json["amount"]["usd"]

    tally("rates", "set", "mine", "--input", 10, "--output", 30)
    tally("rates", "set", "mine", "--input", 5, "--output", 20, "--from", "2026-12-01")
    assert (cost("2026-11-30"), cost("2026-12-01")) == ("10", "5")
    tally("rates", "set", "mine", "--input", 4, "--output", 20, "--from", "2026-12-01")
    tally("rates", "set", "mine", "--input", 9, "--output", 30)
    assert (cost("2026-11-30"), cost("2026-12-01")) == ("9", "4")


def test_set_writes_a_private_file(tally):
    tally("rates", "set", "mine", "--input", 10, "--output", 30)
    assert stat.S_IMODE(config_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(config_file().parent.stat().st_mode) == 0o700
    assert [file.name for file in config_file().parent.iterdir()] == ["config.toml"]


def test_set_keeps_what_is_in_the_file(tally):
    config_file().parent.mkdir(parents=True)
    config_file().write_text('# mine\ntimezone = "UTC"\n\n[rates.mine]\ninput = 1\noutput = 2.5\n')
    assert tally("rates", "set", "mine", "--input", 3, "--from", "2026-12-01").code == 0
    text = config_file().read_text()
    assert text.startswith('# mine\ntimezone = "UTC"\n')
    assert tally("price", "mine", "--output", 1_000_000, "--at", "2026-11-01", "--json").json["amount"] == {
        "usd": "2.5"
    }
    assert tally("price", "mine", "--input", 1_000_000, "--at", "2026-12-01", "--json").json["amount"] == {"usd": "3"}


@pytest.mark.parametrize("broken", ["[[[", "ratez = 1", '[rates]\nmine = "x"', "rates = 3", b"\xff\xfe"])
def test_a_broken_configuration_is_not_damaged(tally, broken):
    config_file().parent.mkdir(parents=True)
    config_file().write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    before = config_file().read_bytes()
    said = tally("rates", "set", "mine", "--input", 3)
    assert said.code == 2
    assert str(config_file()) in said.err
    assert config_file().read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("mine",),
        ("mine", "--input", "abc"),
        ("mine", "--input", "-1"),
        ("mine", "--input", "NaN"),
        ("mine", "--input", "1e99"),
        ("mine", "--rate", "nonsense=1"),
        ("mine", "--rate", "input"),
        ("mine", "--input", "1", "--from", "someday"),
        ("", "--input", "1"),
        ("a\x1b[1m", "--input", "1"),
    ],
)
def test_bad_rates_are_refused(tally, words):
    assert tally("rates", "set", *words).code == 2
    assert not config_file().exists()


def test_an_unwritable_configuration_folder(tally, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    said = tally("rates", "set", "mine", "--input", 1)
    assert said.code == 2
    assert "cannot be written" in said.err


def test_set_takes_any_kind(tally):
    assert tally("rates", "set", "mine", "--input", 1, "--rate", "audio-input=40", "--rate", "fee:web=0.5").code == 0
    said = tally("price", "mine", "--audio-input", 1_000_000, "--fee", "web=2", "--json")
    assert said.json["amount"] == {"usd": "41"}


def test_tally_config_is_made_where_it_names_a_new_file(tally, tmp_path, monkeypatch):
    monkeypatch.setenv("TALLY_CONFIG", str(tmp_path / "new" / "tally.toml"))
    assert tally("rates", "set", "mine", "--input", 1).code == 0
    assert tally("price", "mine", "--input", 1).code == 0


def test_check_agrees_with_all_golden_cases(tally):
    said = tally("rates", "check", GOLDEN, "--json")
    assert said.code in (0, 4)
    apis = {case["name"]: case["api"] for case in json.loads(GOLDEN.read_text())}
    for case in said.json["cases"]:
        assert case["result"] == "agree" or (case["result"] == "unsupported" and apis[case["name"]].startswith("log."))
    assert len(said.json["cases"]) == len(apis) == 56


def test_check_says_what_differs(tally, tmp_path):
    usage = {"prompt_tokens": 1000, "completion_tokens": 0}
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([
        {"name": "right", "model": "gpt-4o", "usage": usage, "expected_usd": "0.0025"},
        {"name": "wrong", "model": "gpt-4o", "usage": usage, "expected_usd": "0.0026"},
        {"name": "unknown", "model": "gpt-4q", "usage": usage, "expected_usd": None},
    ]))  # fmt: skip
    said = tally("rates", "check", file)
    assert said.code == 1
    assert "wrong: expected $0.0026, ours $0.0025; input 1,000 = $0.0025" in said.out
    assert "3 cases" in said.out
    assert "2 agree" in said.out


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", "[1]", '[{"model": "gpt-4o"}]', "nonsense", "[NaN]",
        '[{"model": 1, "usage": {}, "expected_usd": "1"}]',
        '[{"model": "gpt-4o", "usage": {}, "expected_usd": "x"}]',
        '[{"model": "gpt-4o", "usage": {}, "expected_usd": "1", "date": "x"}]',
        '[{"model": "gpt-4o", "usage": {}, "expected_usd": "1", "provider": 3}]',
    ],
)  # fmt: skip
def test_check_of_a_bad_file(tally, text):
    assert tally("rates", "check", "-", stdin=text).code == 2


def newer(amount="3"):
    """The bundled catalogue, built a year later, with one rate of gpt-4o changed."""
    from tallystick.catalog.catalog import bundled_path

    data = json.loads(bundled_path().read_bytes())
    data["built_at"] = "2027-11-21"
    data["models"]["openai"]["gpt-4o"]["cards"][0]["rates"]["input"]["usd"] = amount
    head = {key: data.pop(key) for key in ("schema", "built_at")}
    return json.dumps({**head, **data}, separators=(",", ":")).encode()


def test_diff_shows_changes_and_their_effect(tally, tmp_path):
    assert "no updated catalogue" in tally("rates", "diff").out
    from tallystick.catalog.catalog import bundled_path

    (tmp_path / "new.json").write_bytes(newer())
    tally("record", "gpt-4o", "--input", 1_000_000)
    tally("record", "gpt-4o", "--input", 1_000_000, "--batch")
    tally("record", "gpt-4q", "--input", 1_000_000)
    before = tally("log", "--json").out
    said = tally("rates", "diff", bundled_path(), tmp_path / "new.json")
    assert said.code == 0
    assert "openai/gpt-4o input: $2.5 -> $3" in said.out
    value = tally("rates", "diff", bundled_path(), tmp_path / "new.json", "--json").json
    assert len(value["changes"]) == 1
    (effect,) = value["ledger"]
    assert (effect["calls"], effect["before"], effect["after"]) == (2, {"usd": "3.75"}, {"usd": "4.25"})
    assert tally("log", "--json").out == before


def test_update_installs_what_is_newer_after_asking(tally, monkeypatch):
    from tallystick.cli import updates

    monkeypatch.setattr(updates, "rebuild", lambda _place, _current: newer())
    assert tally("rates", "update", stdin="n\n").code == 130
    assert tally("price", "gpt-4o", "--input", 1_000_000, "--json").json["amount"] == {"usd": "2.5"}
    said = tally("rates", "update", stdin="y\n")
    assert said.code == 0
    assert tally("price", "gpt-4o", "--input", 1_000_000, "--json").json["amount"] == {"usd": "3"}
    assert "not changed" in tally("rates", "update", "--yes").out
    assert "$2.5 -> $3" in tally("rates", "diff").out


def test_a_damaged_update_is_not_used(tally, monkeypatch):
    from tallystick import defaults, front
    from tallystick.cli import updates

    monkeypatch.setattr(updates, "rebuild", lambda _place, _current: newer())
    tally("rates", "update", "--yes")
    snapshot = front.catalogue_folder() / "snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes().replace(b'"usd":"3"', b'"usd":"0"', 1))
    defaults._read_catalog.cache_clear()
    assert tally("price", "gpt-4o", "--input", 1_000_000, "--json").json["amount"] == {"usd": "2.5"}


def test_an_update_that_is_not_newer_is_left_out(tally, monkeypatch):
    from tallystick.catalog.catalog import bundled_path
    from tallystick.cli import updates

    monkeypatch.setattr(updates, "rebuild", lambda _place, _current: bundled_path().read_bytes())
    assert "nothing was installed" in tally("rates", "update", "--yes").out


def test_an_update_without_sources_changes_nothing(tally, monkeypatch, tmp_path):
    from tallystick.cli import updates

    monkeypatch.setattr(updates.sys, "executable", "/bin/false")
    said = tally("rates", "update", "--yes")
    assert said.code == 1
    assert "stays in use" in said.err
