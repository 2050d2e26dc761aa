"""LangChain: names of agents, steps and tools for the calls that its models make, from its callbacks. What the calls
use and cost is metered at the HTTP clients below it.

    from tallystick.capture.langchain import handler
    chain.invoke(question, config={"callbacks": [handler()]})
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final
from uuid import UUID

from tallystick.capture.names import name_of, named
from tallystick.metering.run import Scope, current, leave_scope

_PLUMBING: Final = ("Runnable", "ChatPromptTemplate", "PromptTemplate", "ChannelWrite", "StrOutputParser")
"""How names of LangChain's own begin that say nothing about a step."""

_TAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": ("agent", "agent_name", "lc_agent_name"),
    "user": ("user", "user_id"),
    "team": ("team",),
    "project": ("project",),
}
"""Our tags, and under which names they stand in LangChain's metadata."""


def handler() -> Any:
    """A LangChain callback handler that names calls and does nothing else; one may serve all threads and tasks."""
    return _kind()()


@functools.cache
def _kind() -> type[Any]:
    base = import_module("langchain_core.callbacks").BaseCallbackHandler
    return type("NamesOfCalls", (_Hooks, base), {"__doc__": _Hooks.__doc__})


class _Hooks:
    """Puts names around the calls made below a chain, a tool or a model, and takes them off when it ends."""

    run_inline = True
    """Otherwise LangChain calls back in another context, and what is set there is lost."""

    def __init__(self) -> None:
        super().__init__()
        self._scopes: dict[UUID, Scope] = {}

    def on_chain_start(self, serialized: Any, *_inputs: object, run_id: UUID, **more: Any) -> None:
        """The outermost chain is the agent and the run; one inside it is a step."""
        name = _name(serialized, more)
        outermost = more.get("parent_run_id") is None
        step = None if outermost or name is None or name.startswith(_PLUMBING) else name
        self._enter(run_id, {"agent": name} if outermost else {}, more, step)

    def on_tool_start(self, serialized: Any, *_inputs: object, run_id: UUID, **more: Any) -> None:
        """A tool; calls of models inside it carry its name."""
        self._enter(run_id, {"tool": _name(serialized, more)}, more, None)

    def on_chat_model_start(self, *_inputs: object, run_id: UUID, **more: Any) -> None:
        """A chat model is about to be called."""
        self._enter(run_id, {}, more, None)

    def on_llm_start(self, *_inputs: object, run_id: UUID, **more: Any) -> None:
        """A text model is about to be called."""
        self._enter(run_id, {}, more, None)

    def on_chain_end(self, *_outputs: object, run_id: UUID, **_more: Any) -> None:
        """A chain has ended."""
        self._leave(run_id)

    on_tool_end = on_llm_end = on_chain_error = on_tool_error = on_llm_error = on_chain_end

    def _enter(self, run_id: UUID, tags: Mapping[str, object], more: Mapping[str, Any], step: str | None) -> None:
        stated = more.get("metadata")
        metadata = stated if isinstance(stated, Mapping) else {}
        found = {
            tag: next((metadata[key] for key in keys if name_of(metadata.get(key))), None)
            for tag, keys in _TAGS.items()
        }
        found = {**tags, **{tag: value for tag, value in found.items() if value is not None}}
        node = name_of(metadata.get("langgraph_node"))
        run = str(run_id) if more.get("parent_run_id") is None else None
        scope = named(current.get(), found, step=node or step, run_id=run)
        self._scopes[run_id] = scope
        current.set(scope)

    def _leave(self, run_id: UUID) -> None:
        scope = self._scopes.pop(run_id, None)
        if scope is not None:
            leave_scope(scope)


def _name(serialized: Mapping[str, Any] | None, more: Mapping[str, Any]) -> str | None:
    """The name that LangChain gives to something, or that of its class."""
    told = serialized if isinstance(serialized, Mapping) else {}
    kinds = told.get("id")
    return name_of(more.get("name")) or name_of(told.get("name")) or (name_of(kinds[-1]) if kinds else None)
