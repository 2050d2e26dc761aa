"""Several workers are one gateway: keys, configuration and the ledger's absence are the same for all of them."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_desk import environment, post, tally, up

from tallystick.simulator import Answer

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/openai/v1/chat/completions"
MANY = 12

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers share a socket by inheriting it")


def statuses(told, path=PATH, bearer="x"):
    """What many clients at once are answered, each on a connection of its own, so that every worker has its turn."""
    port = int(told["url"].rpartition(":")[2])
    header = f"authorization: Bearer {bearer}\n"
    with ThreadPoolExecutor(MANY) as pool:
        return {status for status, *_ in pool.map(lambda _: post(port, path, CHAT, header), range(MANY))}


def becomes(wanted, ask, seconds=30):
    """Waits until all are answered so, and then still are."""
    found = None
    for _ in range(seconds * 4):
        found = ask()
        if found == {wanted} and ask() == {wanted}:
            return
        time.sleep(0.25)
    raise AssertionError(f"{found} instead of {wanted}")


def test_keys_and_configuration_reach_all_workers_while_they_serve(simulate, tmp_path):
    sim = simulate(Answer(output_tokens=3))
    place = tmp_path / "tally.toml"
    place.write_text(f"[upstreams.openai]\nurl = '{sim.openai_url}'\n")
    env = {"TALLY_CONFIG": str(place), "OPENAI_API_KEY": "sk-held"}
    with up(tmp_path, "--workers", "2", env=env) as (told, process):
        becomes(200, lambda: statuses(told))
        key = tally(tmp_path, "keys", "create", "--name", "ci", env=env)[1].strip()
        assert statuses(told, bearer=key) == {200}
        assert tally(tmp_path, "keys", "revoke", "ci", env=env)[0] == 0
        becomes(401, lambda: statuses(told, bearer=key))
        place.write_text(place.read_text() + f"[upstreams.mine]\nurl = '{sim.openai_url}'\nauth = 'none'\n")
        process.send_signal(signal.SIGHUP)
        becomes(200, lambda: statuses(told, "/mine/v1/chat/completions"))
        process.terminate()
        assert process.wait(60) == 0


def test_a_ledger_that_cannot_be_used_is_said_once_and_nothing_starts(tmp_path):
    nowhere = "postgresql://postgres@127.0.0.1:1/none"
    code, out, told = tally(tmp_path, "up", "--port", "0", "--workers", "3", "--ledger", nowhere)
    assert (code, out) == (6, "")
    assert "cannot be reached" in told
    assert told.count("cannot be reached") == 1
    assert "Traceback" not in told
    assert "HOME" in environment(tmp_path)
