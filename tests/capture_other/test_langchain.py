"""LangChain's callbacks give names to calls, and the calls stay metered where they are made."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from other_calls import STREAM, entries, used

from tallystick import run, track
from tallystick.capture.langchain import handler
from tallystick.capture.names import named as named_scope
from tallystick.metering.run import current
from tallystick.simulator import Answer

language_models = pytest.importorskip("langchain_core.language_models")
from langchain_core.messages import AIMessage  # noqa: E402 - only where it is installed
from langchain_core.outputs import ChatGeneration, ChatResult  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from langchain_core.tools import StructuredTool  # noqa: E402


class Model(language_models.BaseChatModel):
    """A chat model that sends its calls with requests."""

    url: str
    session: object

    @property
    def _llm_type(self):
        return "simulated"

    def _generate(self, messages, stop=None, run_manager=None, **options):
        body = {**STREAM, "messages": [{"role": "user", "content": messages[-1].content}]}
        with self.session.post(self.url, json=body) as response:
            response.raise_for_status()
            said = response.text
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=said[-14:].strip()))])


@pytest.fixture
def sim(simulate):
    return simulate(Answer(text="yes"))


@pytest.fixture
def model(sim, ledger):
    with requests.Session() as session:
        yield Model(url=f"{sim.openai_url}/chat/completions", session=track(session, ledger=ledger, provider="openai"))


def named(ledger):
    return [(entry.tags.get("agent"), entry.tags.get("tool"), entry.step) for entry in entries(ledger)]


def test_a_chain_is_the_agent_and_what_is_inside_it_a_step(sim, ledger, model):
    chain = (RunnableLambda(lambda text: text).with_config(run_name="prepare") | model).with_config(run_name="research")
    config = {"callbacks": [handler()], "metadata": {"user_id": "ada"}}
    assert chain.invoke("Hello", config=config).content == "data: [DONE]"
    assert list(chain.stream("Hello", config=config))
    found = entries(ledger)
    assert [(entry.tags["agent"], entry.tags["user"]) for entry in found] == [("research", "ada")] * 2
    assert [dict(entry.usage) for entry in found] == [used(call) for call in sim.calls]
    assert len({entry.run_id for entry in found}) == 2
    assert current.get() is None


def test_steps_and_tools_go_with_the_calls_inside_them(ledger, model):
    def ask(question: str) -> str:
        """Asks."""
        return model.invoke(question).content

    tool = StructuredTool.from_function(ask, name="web_search")
    plan = RunnableLambda(lambda text: model.invoke(text).content).with_config(run_name="plan")
    chain = (plan | tool | model).with_config(run_name="research")
    chain.invoke("Hello", config={"callbacks": [handler()]})
    assert named(ledger) == [("research", None, "plan"), ("research", "web_search", None), ("research", None, None)]


def test_what_the_caller_said_stands(ledger, model):
    with run("mine", user="ada") as task:
        model.invoke("Hello", config={"callbacks": [handler()], "metadata": {"user": "eve", "team": "red\nblue"}})
        inside = current.get()
    (entry,) = entries(ledger)
    assert dict(entry.tags) == {"agent": "mine", "user": "ada", "team": "redblue"}
    assert entry.run_id == task.run_id
    assert inside.run is task
    assert current.get() is None


def test_an_error_takes_the_names_off(sim, ledger, model):
    sim.play(Answer(status=400))
    chain = (RunnableLambda(lambda text: text) | model).with_config(run_name="research")
    with pytest.raises(requests.HTTPError):
        chain.invoke("Hello", config={"callbacks": [handler()]})
    assert current.get() is None
    assert named(ledger) == [("research", None, None)]


def test_many_chains_at_once_keep_their_names_apart(ledger, model):
    shared = handler()

    def one(number):
        chain = (RunnableLambda(lambda text: text) | model).with_config(run_name=f"agent {number}")
        chain.invoke("Hello", config={"callbacks": [shared]})
        return current.get()

    async def main():
        chains = [
            (RunnableLambda(lambda text: text) | model).with_config(run_name=f"task {number}") for number in range(30)
        ]
        await asyncio.gather(*(chain.ainvoke("Hello", config={"callbacks": [shared]}) for chain in chains))
        return current.get()

    with ThreadPoolExecutor(15) as pool:
        assert list(pool.map(one, range(70))) == [None] * 70
    assert asyncio.run(main()) is None
    expected = [f"agent {number}" for number in range(70)] + [f"task {number}" for number in range(30)]
    assert sorted(entry.tags["agent"] for entry in entries(ledger)) == sorted(expected)


def test_names_that_cannot_be_tags_are_cleaned_or_left_out():
    scope = named_scope(
        None, {f"tag {number}": number for number in range(40)} | {"bad\nname": "x", "none": None, "long": "y" * 300}
    )
    assert len(scope.who.tags) == 32
    scope = named_scope(scope, {"tag 1": "other"}, step="  ", run_id="run\x00 1", trace_id=7)
    assert (scope.who.tags["tag 1"], scope.who.step, scope.who.run_id, scope.who.trace_id) == ("1", None, "run 1", "7")
    cleaned = named_scope(None, {"long": "y" * 300, "bad\nname": "x", "flag": True}).who.tags
    assert dict(cleaned) == {"long": "y" * 256}
