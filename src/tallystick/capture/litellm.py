"""LiteLLM: names for its calls (user, team, agent, step, tool, run) from their metadata. What they use and cost is
metered at the HTTP clients below it.

    from tallystick.capture.litellm import name_calls
    undo = name_calls()
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from tallystick.capture.names import clear, name_of, named
from tallystick.metering.run import current

_CALLS: Final = (
    "completion", "acompletion", "text_completion", "atext_completion", "embedding", "aembedding", "responses",
    "aresponses", "image_generation", "aimage_generation", "transcription", "atranscription", "speech", "aspeech",
    "rerank", "arerank",
)  # fmt: skip
"""LiteLLM's functions around which the scope is put back as it was."""

_TAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": ("agent", "agent_name", "trace_name"),
    "tool": ("tool", "tool_name"),
    "team": ("team", "user_api_key_team_alias", "user_api_key_team_id"),
    "project": ("project",),
    "user": ("user", "user_id", "trace_user_id", "user_api_key_end_user_id", "user_api_key_user_id"),
}
"""Our tags, and under which names LiteLLM's users and its proxy put them into metadata, first come first."""


def name_calls() -> Callable[[], None]:
    """Names all calls that LiteLLM makes in this process from now on; the function returned undoes it. Functions that
    were taken out of LiteLLM before (`from litellm import completion`) are named too, but keep their names in force
    until the next call or the end of the run around them."""
    litellm = import_module("litellm")
    ours = handler()
    litellm.callbacks.append(ours)
    before = {name: getattr(litellm, name) for name in _CALLS if hasattr(litellm, name)}

    def undo() -> None:
        for name, function in before.items():
            setattr(litellm, name, function)
        for callbacks in (litellm.callbacks, litellm.input_callback):
            if ours in callbacks:
                callbacks.remove(ours)

    for name, function in before.items():
        setattr(litellm, name, _bounded(function))
    return undo


def handler() -> Any:
    """A LiteLLM CustomLogger that names calls and does nothing else; for `litellm.callbacks`."""
    return _kind()()


@functools.cache
def _kind() -> type[Any]:
    logger = import_module("litellm.integrations.custom_logger").CustomLogger
    return type("NamesOfCalls", (_Hooks, logger), {"__doc__": _Hooks.__doc__})


class _Hooks:
    """Puts the names of a LiteLLM call around the HTTP requests that it makes, and takes them off again."""

    def log_pre_api_call(self, *, kwargs: Mapping[str, Any], **_told: object) -> None:
        """Just before the request is sent, in the thread that sends it."""
        _enter(kwargs)

    def log_post_api_call(self, **_told: object) -> None:
        """When the answer is there, in the same thread."""
        clear()

    async def async_pre_call_deployment_hook(self, kwargs: Mapping[str, Any], *_told: object) -> None:
        """Before the request is made, in the task that makes it; the hook above may run in another context then."""
        _enter(kwargs)

    async def async_post_call_success_deployment_hook(self, *_told: object) -> None:
        """When the answer is there, in the same task."""
        clear()

    async def async_post_call_failure_deployment_hook(self, *_told: object, **_more: object) -> None:
        """When an attempt has failed, in the same task."""
        clear()


def _enter(options: Mapping[str, Any]) -> None:
    clear()
    found = _metadata(options)
    tags: dict[str, object] = _listed(found.get("tags") or options.get("request_tags"))
    for tag, keys in _TAGS.items():
        value = next((found[key] for key in keys if name_of(found.get(key))), None)
        if value is not None:
            tags[tag] = value
    step = name_of(found.get("step")) or name_of(found.get("generation_name"))
    run_id = name_of(found.get("run_id")) or name_of(found.get("run"))
    trace = name_of(found.get("trace_id")) or name_of(options.get("litellm_trace_id"))
    if tags or step or run_id or trace:
        current.set(named(current.get(), tags, step=step, run_id=run_id, trace_id=trace))


def _metadata(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller has said of a call, wherever it stands at this stage."""
    inner = options.get("litellm_params")
    places = [options, inner if isinstance(inner, Mapping) else {}]
    found: dict[str, Any] = {}
    for place in places:
        for key in ("litellm_metadata", "metadata"):
            stated = place.get(key)
            if isinstance(stated, Mapping):
                found.update({name: value for name, value in stated.items() if value is not None})
    user = options.get("user")
    return found if user is None else {**found, "user": user}


def _listed(tags: object) -> dict[str, object]:
    """LiteLLM's tags are a list of words; `name:value` makes a tag of ours."""
    words = [word.partition(":") for word in tags if isinstance(word, str)] if isinstance(tags, list | tuple) else []
    return {name.strip(): value for name, _, value in words if name.strip() and value.strip()}


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which leaves the scope as it found it."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **options: Any) -> Any:
            before = current.get()
            try:
                return await function(*args, **options)
            finally:
                current.set(before)

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        before = current.get()
        try:
            return function(*args, **options)
        finally:
            current.set(before)

    return called
