"""Virtual keys: who may call, for whom, for how much; and that neither they nor the provider's keys leak."""

import json
import time
from datetime import UTC, datetime, timedelta

import anthropic
import openai
import pytest
from gateway_desk import post, tally, up
from google import genai
from google.genai import errors as google_errors

from tallystick.gateway.keys import find, save, saved
from tallystick.metering.budgets import put
from tallystick.metering.rules import make_budget
from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
CHAT = {"model": "gpt-4o", "messages": HELLO, "max_tokens": 50}
HELD = {"OPENAI_API_KEY": "sk-held-openai", "ANTHROPIC_API_KEY": "sk-held-anthropic", "GEMINI_API_KEY": "held-gemini"}


def ask(url, key, **options):
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, **options) as client:
        return client.chat.completions.create(**CHAT)


def claude(url, key, **options):
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, **options) as client:
        return client.messages.create(model="claude-sonnet-5", max_tokens=50, messages=HELLO)


def gemini(url, key):
    with genai.Client(api_key=key, vertexai=False, http_options={"base_url": url}) as client:
        return client.models.generate_content(model="gemini-2.5-flash", contents="Hello there")


def test_the_providers_key_takes_the_place_of_the_virtual_one(simulate, gateway):
    sim = simulate()
    through = gateway(sim, env=HELD)
    key = through.key(tags={"team": "a"})
    ask(through.openai, key)
    claude(through.anthropic, key)
    claude(through.anthropic, None, auth_token=key)
    gemini(through.gemini, key)
    post(through.port, "/gemini/v1beta/openai/chat/completions", CHAT, f"authorization: bearer {key}\n")
    bearers = ("authorization", "x-api-key", "x-goog-api-key")
    sent = [{name: call.headers[name] for name in bearers if name in call.headers} for call in sim.calls]
    assert sent == [
        {"authorization": "Bearer sk-held-openai"},
        {"x-api-key": "sk-held-anthropic"},
        {"x-api-key": "sk-held-anthropic"},
        {"x-goog-api-key": "held-gemini"},
        {"authorization": "Bearer held-gemini"},
    ]
    assert "tly_" not in repr([(call.headers, call.query, call.path, call.body) for call in sim.calls])
    entries = through.entries(4)
    key_id = key[4:14]
    assert [dict(entry.tags) for entry in entries[:4]] == [{"key": key_id, "team": "a"}] * 4
    assert key[14:] not in repr(entries)


REFUSED = {
    "openai": (lambda through, key: ask(through.openai, key), openai.AuthenticationError),
    "anthropic": (lambda through, key: claude(through.anthropic, key), anthropic.AuthenticationError),
    "gemini": (lambda through, key: gemini(through.gemini, key), google_errors.ClientError),
}


@pytest.mark.parametrize("provider", REFUSED)
@pytest.mark.parametrize("kind", ["unknown", "wrong secret", "expired", "revoked", "short"])
def test_a_key_that_is_not_valid_is_never_forwarded(simulate, gateway, provider, kind):
    sim = simulate()
    through = gateway(sim, env=HELD)
    now = datetime.now(UTC)
    key = {
        "unknown": lambda: "tly_" + "0" * 74,
        "wrong secret": lambda: through.key()[:-1] + "x",
        "expired": lambda: through.key(expires_at=now - timedelta(seconds=1)),
        "revoked": lambda: through.key(revoked_at=now),
        "short": lambda: "tly_x",
    }[kind]()
    use, error = REFUSED[provider]
    with pytest.raises(error) as caught:
        use(through, key)
    assert getattr(caught.value, "status_code", None) == 401 or caught.value.code == 401
    assert key not in str(caught.value)
    assert sim.calls == []
    assert through.entries() == []


def test_keys_held_here_serve_only_those_who_bear_a_virtual_one(simulate, gateway):
    sim = simulate()
    through = gateway(sim, env=HELD)
    ask(through.openai, "sk-my-own")
    assert sim.calls[0].headers["authorization"] == "Bearer sk-my-own"
    status, _, _ = post(through.port, "/openai/v1/chat/completions", CHAT)
    assert status == 200
    assert "authorization" not in sim.calls[1].headers
    assert "sk-held" not in repr(sim.calls)


def test_callers_with_keys_of_their_own_can_be_kept_out(simulate, gateway):
    sim = simulate()
    through = gateway(sim, env=HELD, gateway={"own_keys": False})
    with pytest.raises(openai.AuthenticationError):
        ask(through.openai, "sk-my-own")
    ask(through.openai, through.key())
    assert len(sim.calls) == 1


def test_without_a_providers_key_a_virtual_one_reaches_nobody(simulate, gateway):
    sim = simulate()
    through = gateway(sim, upstreams={"openai": "https://api.openai.com/v1"})
    with pytest.raises(openai.InternalServerError, match="holds no key for openai"):
        ask(through.openai, through.key())


def test_fixed_tags_win_and_headers_fill_only_open_names(simulate, gateway):
    through = gateway(simulate(), env=HELD)
    key = through.key(tags={"team": "a"}, open=("user",))
    extra = {"x-tally-team": "b", "x-tally-user": "ada", "x-tally-tags": "key=other,project=x", "x-tally-agent": "z"}
    ask(through.openai, key, default_headers=extra)
    ask(through.openai, "sk-own", default_headers={"x-tally-tags": f"key={key[4:14]},project=x"})
    ours, other = through.entries(2)
    assert dict(ours.tags) == {"key": key[4:14], "team": "a", "user": "ada"}
    assert dict(other.tags) == {"project": "x"}


def test_a_key_calls_only_its_models(simulate, gateway):
    sim = simulate()
    through = gateway(sim, env=HELD)
    key = through.key(models=("gpt-5*", "claude-sonnet-5"))
    with pytest.raises(openai.PermissionDeniedError, match="gpt-4o"):
        ask(through.openai, key)
    with pytest.raises(google_errors.ClientError) as caught:
        gemini(through.gemini, key)
    assert caught.value.code == 403
    assert claude(through.anthropic, key).usage.output_tokens > 0
    assert len(sim.calls) == 1


@pytest.mark.parametrize("who", ["key", "allowed key", "limited caller", "anybody"])
def test_what_cannot_be_metered_is_no_way_around(simulate, gateway, who):
    sim = simulate()
    through = gateway(sim, env=HELD)
    extra = "x-tally-team: a\n"
    if "key" in who:
        extra = f"authorization: Bearer {through.key(allow_unmetered=who == 'allowed key')}\n"
    if who == "limited caller":
        put(through.ledger, make_budget("team-a", {"limit": "$5/day", "scope": {"team": "a"}}), datetime.now(UTC))
        through.station.admission.refresh()
    status, _, body = post(through.port, "/openai/v1/fine_tuning/jobs", {"model": "gpt-4o"}, extra)
    passes = who in ("allowed key", "anybody")
    assert len(sim.calls) == passes
    # The simulator knows nothing of this path.
    assert status == (404 if passes else 403)
    if not passes:
        assert json.loads(body)["error"]["code"] == "unmetered"
    upgrade = f"{extra}upgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: x\n"
    status, _, _ = post(through.port, "/openai/v1/realtime", b"", upgrade.replace("upgrade:", "upgrade:"))
    assert status == (426 if passes else 403)
    assert len(sim.calls) == passes


def test_the_verbs_from_birth_to_end(simulate, tmp_path):
    code, token, told = tally(
        tmp_path, "keys", "create", "--team", "a", "--user", "ada", "--budget", "$50/day", "--rpm", "2", "--tpm", "1000000",
        "--models", "gpt-4o,gpt-5*", "--expires", "30d", "--open", "project", "--name", "ada's"
    )  # fmt: skip
    assert code == 0
    token = token.strip()
    assert len(token) == 78
    assert "only time" in told
    _, listed, _ = tally(tmp_path, "keys", "list", "--json")
    [row] = json.loads(listed)["keys"]
    assert (row["prefix"], row["state"], row["tags"]) == (token[:14], "valid", {"team": "a", "user": "ada"})
    assert token[14:] not in listed
    assert token[14:].encode() not in (tmp_path / "tallystick" / "ledger.db").read_bytes()
    _, shown, _ = tally(tmp_path, "budget", "list")
    assert [f"key-{token[4:14]}{end}" in shown for end in ("", "-rpm", "-tpm")] == [True] * 3

    sim = simulate(Answer(output_tokens=5))
    with up(tmp_path, "--upstream", f"openai={sim.openai_url}", env=HELD) as (told, _):
        url = told["urls"]["openai"]
        assert ask(url, token).usage.completion_tokens == 5
        ask(url, token)
        with pytest.raises(openai.RateLimitError, match="2 calls"):
            ask(url, token)
        code, rotated, _ = tally(tmp_path, "keys", "rotate", token[:14])
        rotated = rotated.strip()
        assert (code, rotated[:14], rotated == token) == (0, token[:14], False)
        assert_soon(lambda: is_refused(url, token, 401))
        assert is_refused(url, rotated, 429)
        code, _, _ = tally(tmp_path, "keys", "revoke", "ada's")
        assert code == 0
        assert_soon(lambda: is_refused(url, rotated, 401))
        _, fresh, _ = tally(tmp_path, "keys", "create")
        assert ask(url, fresh.strip()).usage.completion_tokens == 5
    _, shown, _ = tally(tmp_path, "budget", "list")
    assert token[4:14] not in shown
    code, _, told = tally(tmp_path, "keys", "rotate", token)
    assert (code, token[14:] in told) == (2, False)
    assert tally(tmp_path, "keys", "revoke", "nobody")[0] == 2
    assert tally(tmp_path, "keys", "create", "--tag", "key=x")[0] == 2
    assert tally(tmp_path, "keys", "create", "--expires", "2020-01-01")[0] == 2
    assert "revoked" in tally(tmp_path, "keys", "list")[1]


def is_refused(url, key, status):
    try:
        ask(url, key)
    except openai.APIStatusError as error:
        return error.status_code == status
    return False


def assert_soon(holds):
    for _ in range(50):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within five seconds")


def test_keys_are_found_by_id_prefix_or_a_name_of_their_own(simulate, gateway):
    through = gateway(simulate())
    token = through.key(name="one")
    assert find(through.ledger, token).key_id == find(through.ledger, "one").key_id == token[4:14]
    assert find(through.ledger, token[4:14]).state(datetime.now(UTC)) == "valid"
    through.ledger.state("keys", "broken", "{")
    assert [key.name for key in saved(through.ledger)] == ["one"]
    save(through.ledger, find(through.ledger, "one"))
    assert len(saved(through.ledger)) == 1
