"""price, explain, count, estimate, compare: what a user sees before a call is made."""

import json

import pytest


def test_price_line_by_line(tally):
    said = tally("price", "gpt-4o", "--input", 1000, "--output", 100, "--cache-read", 500)
    assert said.code == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[0] for row in rows] == ["input", "cache_read", "output", "total", "source:"]
    assert [row[-1] for row in rows[:4]] == ["$0.0025", "$0.000625", "$0.001", "$0.004125"]


def test_price_as_json(tally):
    cost = tally("price", "gpt-4o", "--input", 1000, "--json").json
    assert cost["amount"] == {"usd": "0.0025"}
    assert cost["lines"][0]["rate"] == "2.5"


def test_price_of_a_usage_object_from_stdin(tally):
    said = tally("price", "gpt-4o", "--usage", "-", stdin='{"prompt_tokens": 1000, "completion_tokens": 100}')
    assert said.code == 0
    assert "$0.0035" in said.out


def test_price_with_tier_and_batch(tally):
    plain = tally("price", "gpt-4o", "--input", 1000, "--json").json["amount"]
    assert tally("price", "gpt-4o", "--input", 1000, "--batch", "--json").json["amount"] == {"usd": "0.00125"}
    assert tally("price", "gpt-4o", "--input", 1000, "--tier", "priority", "--json").json["amount"] != plain
    assert tally("price", "gpt-4o", "--input", 1000, "-c", "processing=batch", "--json").json["amount"] != plain


@pytest.mark.parametrize(
    "words",
    [
        ("price", "gpt-4q", "--input", "1"),
        ("explain", "-m", "gpt-4q", "hello"),
        ("estimate", "-m", "gpt-4q", "hello"),
        ("compare", "--text", "hello", "-m", "gpt-4q"),
        ("compare", "--text", "hello", "hi", "-m", "gpt-4q"),
        ("rates", "show", "gpt-4q"),
        ("record", "gpt-4q", "--input", "1"),
    ],
)
def test_an_unknown_model_is_exit_3_with_three_names_and_never_free(tally, words):
    said = tally(*words)
    assert said.code == 3
    names = said.err.partition("Nearest names: ")[2].partition(". ")[0].split(", ")
    assert len(set(names)) == 3
    assert "gpt-4o" in names
    assert "unknown, not zero" in said.err
    assert "tally rates set gpt-4q" in said.err
    assert "$0.00" not in said.out + said.err


def test_a_kind_without_a_rate_is_exit_3(tally):
    said = tally("price", "gpt-4o", "--input", 10, "--audio-input", 5)
    assert said.code == 3
    assert "unknown (at least $0.000025)" in said.out
    assert "audio_input" in said.err
    assert tally("price", "gpt-4o", "--input", 10, "--audio-input", 5, "--json").json["amount"] is None


def test_explain_shows_tokens_counts_and_cost(tally):
    said = tally("explain", "--model", "gpt-4o", "Hello, how are you today?", "--answer", "I am fine.", "--rate", 20)
    assert said.code == 0
    assert "Hello|,| how| are| you| today|?" in said.out
    assert "I| am| fine|." in said.out
    assert "7 + 4 = 11 tokens" in said.out
    assert "$0.00022 " in said.out
    assert tally("explain", "--rate", 20).out == said.out


def test_explain_in_a_terminal_is_coloured_and_piped_is_not(terminal, shell):
    assert "\x1b[" not in shell("explain").out
    drawn = terminal("explain")
    assert "\x1b[44mHello\x1b[0m" in drawn
    assert "Hello|" not in drawn
    assert "\x1b[" not in terminal("explain", env={"NO_COLOR": "1"})
    assert "Hello|,| how" in terminal("explain", env={"NO_COLOR": "1"})


def test_explain_of_a_model_with_a_secret_tokenizer(tally):
    said = tally("explain", "-m", "claude-sonnet-5", "hello there")
    assert said.code == 0
    assert "about " in said.out
    assert "not shown" in said.out


def test_explain_as_json(tally):
    stages = tally("explain", "hello", "--json").json
    assert stages["input"]["tokens"] == stages["total_tokens"] == 1
    assert stages["cost"]["amount"] == {"usd": "0.0000025"}


def test_count(tally, tmp_path):
    assert tally("count", "Hello, how are you today?").out == "7, exact (o200k_base)\n"
    assert tally("count", "-", stdin="Hello, how are you today?").out == "7, exact (o200k_base)\n"
    file = tmp_path / "text"
    file.write_text("Hello, how are you today?")
    assert tally("count", "--file", file).out == "7, exact (o200k_base)\n"
    assert tally("count", "-m", "claude-sonnet-5", "hello").out.startswith("about ")
    assert tally("count", "").out.startswith("0, exact")
    assert tally("count", "--json", "hello").json["tokens"] == 1


def test_count_in_pieces_is_the_count_of_the_whole(tally, tmp_path, monkeypatch):
    from tallystick.cli import shared

    text = "Grüße, 世界! def f(x):\n    return x * 1234567\n" * 500
    file = tmp_path / "text"
    file.write_text(text)
    monkeypatch.setattr(shared, "CHUNK", 101)
    assert tally("count", "-f", file, "--json").json == tally("count", text, "--json").json


def test_count_of_chat_messages(tally, tmp_path):
    file = tmp_path / "chat.json"
    file.write_text(json.dumps([{"role": "user", "content": "hello"}]))
    assert tally("count", "--messages", file, "--json").json["tokens"] > 1
    assert tally("estimate", "--messages", file).code == 0
    file.write_text('{"role": "user"}')
    assert tally("count", "--messages", file).code == 2


def test_text_that_is_not_utf8_is_counted_and_said(tally, tmp_path):
    file = tmp_path / "latin1"
    file.write_bytes(b"caf\xe9 ol\xe9")
    said = tally("count", "-f", file)
    assert said.code == 4
    assert "2 places" in said.err
    file.write_bytes("héllo".encode("utf-16"))
    assert tally("count", "-f", file).code == 2
    file.write_bytes("\ufeffhello".encode())
    assert tally("count", "-f", file).out == "1, exact (o200k_base)\n"


def test_estimate_says_its_basis(tally):
    said = tally("estimate", "hello there", "--max-output", 100)
    assert said.code == 0
    assert "default" in said.out
    assert "at most 100" in said.out
    for number in range(20):
        tally("record", "gpt-4o", "--input", 10, "--output", 100 + number)
    learned = tally("estimate", "hello there", "--json").json["output"]
    assert "last 20 calls" in learned["basis"]
    assert 100 <= learned["low"] <= learned["likely"] <= learned["high"]
    assert "default" in tally("estimate", "hello there", "--agent", "other").out


def test_estimate_without_a_readable_ledger_says_so(tally, monkeypatch, tmp_path):
    (tmp_path / "ledger").write_text("nonsense")
    monkeypatch.setenv("TALLY_LEDGER", str(tmp_path / "ledger"))
    said = tally("estimate", "hello")
    assert said.code == 0
    assert "no history" in said.out


def test_compare_models(tally):
    said = tally("compare", "--text", "Hello there", "-m", "gpt-4o,claude-sonnet-5", "--calls", 10)
    assert said.code == 0
    assert "10 calls" in said.out
    rows = tally("compare", "--text", "Hello there", "-m", "gpt-4o,claude-sonnet-5", "--json").json
    assert [row["input_tokens"]["method"] for row in rows] == ["exact", "estimate"]
    assert rows[0]["per_month"]["usd"] == "5.005"


def test_compare_with_one_unknown_model_prices_the_other(tally):
    said = tally("compare", "--text", "Hello there", "-m", "gpt-4q,gpt-4o")
    assert said.code == 3
    assert "$0.005005" in said.out
    assert "unknown" in said.out


def test_compare_prompts_by_section_with_break_even(tally, tmp_path):
    (tmp_path / "a").write_text("# Task\nSummarise the text.\n# Rules\n" + "Be brief and kind. " * 50)
    (tmp_path / "b").write_text("# Task\nSummarise the text.\n")
    said = tally("compare", tmp_path / "a", tmp_path / "b", "-m", "gpt-4o")
    assert said.code == 0
    result = tally("compare", tmp_path / "a", tmp_path / "b", "-m", "gpt-4o", "--json").json
    saved, more = result["saved_tokens"], result["break_even_output_tokens"]
    assert f"B saves {saved:,} input tokens; {more:,} more output tokens cost the same." in said.out
    assert more == saved // 4  # an output token of gpt-4o costs four input tokens
    assert [section["title"] for section in result["a"]["sections"]] == ["Task", "Rules"]
    assert sum(float(section["cost"]["usd"]) for section in result["a"]["sections"]) == pytest.approx(
        float(result["a"]["cost"]["usd"]), rel=0.05
    )


def test_compare_that_forgets_text(tally):
    said = tally("compare", "Hello there", "-m", "gpt-4o")
    assert said.code == 2
    assert "--text" in said.err
