"""boto3's bedrock-runtime: the four operations, refusals, retries, and bodies that are changed before they are signed."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.endpoint import Endpoint
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from other_calls import TEXT, entries, used

import tallystick
from tallystick import instrument, run, track
from tallystick.defaults import catalog
from tallystick.metering.leave import Admitted
from tallystick.metering.meter import Meter
from tallystick.simulator import Answer

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ASK = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "Hello, how are you today?"}]}]}
INVOKE = {
    "modelId": MODEL,
    "body": json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 400,
            "messages": [{"role": "user", "content": "Hello"}],
        }
    ),
}


def bedrock(url, **options):
    return boto3.client(
        "bedrock-runtime", endpoint_url=url, region_name="us-east-1", aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 3, "mode": "standard"}, **options),
    )  # fmt: skip


@pytest.fixture
def pair(twins, ledger):
    """A bare client and a tracked one, each with its own provider that says the same."""

    def made(answer):
        sims = twins(answer)
        bare, tracked = (bedrock(sim.bedrock_url) for sim in sims)
        closers.extend((bare, tracked))
        assert track(tracked, ledger=ledger, user="ada") is tracked
        return sims, bare, tracked

    closers = []
    yield made
    for client in closers:
        client.close()


def answered(response):
    """A response without what botocore says of the transport."""
    return {**response, "ResponseMetadata": {**response["ResponseMetadata"], "HTTPHeaders": None}}


def converse(client):
    return answered(client.converse(**ASK))


def converse_stream(client):
    return list(client.converse_stream(**ASK)["stream"])


def invoke(client):
    return client.invoke_model(**INVOKE)["body"].read()


def invoke_in_pieces(client):
    return list(client.invoke_model(**INVOKE)["body"].iter_chunks(17))


def invoke_lines(client):
    return list(client.invoke_model(**INVOKE)["body"].iter_lines())


def invoke_stream(client):
    return list(client.invoke_model_with_response_stream(**INVOKE)["body"])


WAYS = [converse, converse_stream, invoke, invoke_in_pieces, invoke_lines, invoke_stream]


@pytest.mark.parametrize("way", WAYS)
def test_every_operation_gives_the_same(pair, ledger, way):
    sims, bare, tracked = pair(Answer(text=TEXT, cached_tokens=2))
    assert way(bare) == way(tracked)
    (entry,) = entries(ledger)
    assert dict(entry.usage) == used(sims[1].calls[0])
    assert (entry.quality, entry.status, entry.provider, entry.tags["user"]) == ("exact", "ok", "aws", "ada")
    assert entry.cost.amount.pico > 0


@pytest.mark.parametrize("way", WAYS)
def test_errors_are_botocores_own(pair, ledger, way):
    _, bare, tracked = pair(Answer(status=400, message="Not today."))
    seen = []
    for client in (bare, tracked):
        with pytest.raises(ClientError, match="Not today") as caught:
            way(client)
        seen.append((type(caught.value).__name__, str(caught.value)))
    assert seen[0] == seen[1]
    (entry,) = entries(ledger)
    assert (entry.status, entry.http_status, entry.cost.amount.pico) == ("error", 400, 0)


@pytest.mark.parametrize("way", [converse, converse_stream, invoke])
def test_each_retry_is_a_call(pair, ledger, way):
    sims, _, tracked = pair(Answer(text=TEXT, status=503, failures=1))
    assert way(tracked)
    assert [entry.http_status for entry in entries(ledger)] == [503, 200]
    assert dict(entries(ledger)[1].usage) == used(sims[1].calls[1])


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_raised_once_and_nothing_is_sent(pair, ledger, way):
    sims, _, tracked = pair(Answer(text=TEXT))
    with run("small", max_cost="$0.000001") as task, pytest.raises(ClientError) as caught:
        way(tracked)
    assert caught.value.response["Error"]["Code"] == "ServiceQuotaExceededException"
    assert caught.value.response["ResponseMetadata"].get("RetryAttempts") == 0
    assert not sims[1].calls
    assert task.refused == 1
    assert way(tracked)
    assert [entry.status for entry in entries(ledger)] == ["refused", "ok"]


@pytest.mark.parametrize("way", [converse_stream, invoke_stream])
def test_a_stream_that_reaches_its_limit_ends_cleanly(simulate, ledger, way):
    sim = simulate(Answer(text="word " * 300, chunk_tokens=1, chunk_ms=2))
    with closing(bedrock(sim.bedrock_url)) as client:
        track(client, ledger=ledger, max_cost="$0.002")
        events = way(client)
        sim.play(Answer(text="the connection was not used again"))
        assert client.converse(**ASK)["output"]["message"]["content"][0]["text"].startswith("the connection")
    assert any("max_tokens" in str(event) for event in events[-4:])
    assert [entry.status for entry in entries(ledger)] == ["cut", "ok"]
    assert sim.wait(1)[0].abandoned


def test_a_stream_left_early_counts_what_was_delivered(simulate, ledger):
    sim = simulate(Answer(text=TEXT, chunk_ms=20, chunk_tokens=2))
    with closing(bedrock(sim.bedrock_url)) as client:
        track(client, ledger=ledger)
        stream = client.converse_stream(**ASK)["stream"]
        for event in stream:
            if "contentBlockDelta" in event:
                break
        stream.close()
    (entry,) = entries(ledger)
    assert (entry.status, entry.quality) == ("cancelled", "lower_bound")
    assert sim.wait(1)[0].abandoned


def test_a_broken_stream_is_the_same_exception(pair, ledger):
    _, bare, tracked = pair(Answer(text=TEXT, chunk_tokens=2, cut_after=6))
    seen = []
    for client in (bare, tracked):
        with pytest.raises(Exception) as caught:
            converse_stream(client)
        seen.append((type(caught.value), str(caught.value)))
    assert seen[0] == seen[1]
    (entry,) = entries(ledger)
    assert (entry.status, entry.quality) == ("error", "lower_bound")


def test_nobody_there_and_nobody_answering_are_the_same_exceptions(simulate, ledger):
    sim = simulate(Answer(first_byte_ms=30_000))
    for url, error in (("http://127.0.0.1:9", EndpointConnectionError), (sim.bedrock_url, ReadTimeoutError)):
        with closing(bedrock(url, read_timeout=0.2)) as client:
            track(client, ledger=ledger)
            with pytest.raises(error):
                client.converse(**ASK)
    found = entries(ledger)
    assert [entry.status for entry in found] == ["error"] * 6
    assert [entry.cost is None or entry.cost.amount is None for entry in found] == [False] * 3 + [True] * 3


def test_a_call_that_cannot_be_signed_is_never_sent(simulate, ledger, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    sim = simulate()
    with closing(boto3.client("bedrock-runtime", endpoint_url=sim.bedrock_url, region_name="us-east-1")) as client:
        track(client, ledger=ledger)
        with pytest.raises(NoCredentialsError):
            client.converse(**ASK)
    (entry,) = entries(ledger)
    assert (entry.status, entry.cost.amount.pico) == ("error", 0)


def test_an_answer_in_the_providers_place_is_no_call(pair, ledger):
    _, _, tracked = pair(Answer(text="real"))
    session = URLLib3Session()

    def instead(request, **_):
        return session.send(request)

    tracked.meta.events.register("before-send.bedrock-runtime.Converse", instead)
    assert tracked.converse(**ASK)["output"]["message"]["content"][0]["text"] == "real"
    session.close()
    (entry,) = entries(ledger)
    assert entry.cost.amount.pico == 0


class Caps:
    """Admits every call with at most 21 tokens of answer."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.covered = None

    def leave(self, call_id, facts, who, at):
        return self

    def ask(self):
        asked = Future()
        asked.set_result(Admitted(max_output=21, capped=True))
        return asked

    def grow(self, output):
        return self.ask()

    def settle(self, entry):
        return self.ledger.submit([entry])

    def release(self):
        return self.ask()


@pytest.mark.parametrize("way", [converse, converse_stream, invoke, invoke_stream])
def test_a_changed_body_is_signed_as_it_is_sent(simulate, ledger, way):
    sim = simulate(Answer(text=TEXT))
    with closing(bedrock(sim.bedrock_url)) as client:
        track(client, meter=Meter(ledger, catalog, admission=Caps(ledger)))
        assert way(client)
    (call,) = sim.calls
    body = json.loads(call.body)
    assert body.get("max_tokens") == 21 or body["inferenceConfig"]["maxTokens"] == 21
    assert call.usage.output_tokens == 21
    signed = call.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest(
        "POST", sim.bedrock_url + call.path, data=call.body, headers={name: call.headers[name] for name in signed}
    )
    again.context["timestamp"] = call.headers["x-amz-date"]
    auth = SigV4Auth(Credentials("none", "none"), "bedrock", "us-east-1")
    expected = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
    assert call.headers["authorization"].endswith(f"Signature={expected}")


def test_instrument_reaches_clients_that_exist_and_is_undone(simulate, ledger):
    sim = simulate(Answer(text="yes"))
    before = (Endpoint.create_request, Endpoint._send, Endpoint._get_response)
    with closing(bedrock(sim.bedrock_url)) as client, closing(bedrock(sim.bedrock_url)) as tracked:
        track(tracked, ledger=ledger, user="ada")
        with instrument(ledger=ledger):
            client.converse(**ASK)
            converse_stream(client)
            tracked.converse(**ASK)
        client.converse(**ASK)
    assert (Endpoint.create_request, Endpoint._send, Endpoint._get_response) == before
    assert [entry.tags.get("user") for entry in entries(ledger)] == [None, None, "ada"]


def test_fifty_threads_keep_their_tags_apart(simulate, ledger):
    sim = simulate(Answer(chunk_ms=1))
    with closing(bedrock(sim.bedrock_url, max_pool_connections=50)) as client:
        track(client, ledger=ledger)

        def one(number):
            with run(f"agent {number}"):
                return converse_stream(client)

        with ThreadPoolExecutor(25) as pool:
            streams = list(pool.map(one, range(50)))
    assert all("metadata" in stream[-1] for stream in streams)
    assert sorted(entry.tags["agent"] for entry in entries(ledger)) == sorted(f"agent {n}" for n in range(50))


def test_a_ledger_that_takes_nothing_changes_nothing_for_the_caller(pair, ledger, caplog):
    _, bare, tracked = pair(Answer(text=TEXT))
    ledger.close()
    for way in WAYS:
        assert way(bare) == way(tracked)
    assert "takes no entries" in caplog.text or "metering failed" in caplog.text


def test_a_call_is_in_the_file_before_its_last_bytes_are_handed_over(simulate, tmp_path):
    sim = simulate(Answer(text="now"))
    place = tmp_path / "ledger.db"
    counts = []
    with tallystick.open(place) as ledger, closing(bedrock(sim.bedrock_url)) as client:
        track(client, ledger=ledger)
        for event in client.converse_stream(**ASK)["stream"]:
            if "metadata" in event:
                with tallystick.open(place, read_only=True) as other:
                    counts.append(len(entries(other)))
        client.converse(**ASK)
        with tallystick.open(place, read_only=True) as other:
            counts.append(len(entries(other)))
    assert counts == [1, 2]
