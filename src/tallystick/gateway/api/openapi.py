"""OpenAPI: the document of the interface, made from the table that also routes its requests."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

from tallystick.gateway.api.routes import TABLE, Param, Route
from tallystick.gateway.api.schemas import Shape, ref, shapes

PREFIX: Final = "/tally/v1"
VERSION: Final = "1"

_WHY: Final = {
    400: "What was asked makes no sense; a sentence says why.",
    404: "There is no such thing.",
    415: "A change is taken as JSON only.",
    503: "The ledger cannot be asked now.",
}
_VALUE: Final = re.compile(r"\{(\w+)\}")


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    bodies = [route.body for route in TABLE if route.body is not None]
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in TABLE:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths["/live"] = {"get": _live()}
    paths["/openapi.json"] = {"get": _itself()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tallystick",
            "version": VERSION,
            "summary": "What LLM calls cost: calls, runs, spend, budgets, holds, rates.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": PREFIX}],
        "paths": paths,
        "components": {"schemas": {**shapes(), **components}},
    }


def _operation(route: Route) -> dict[str, Any]:
    named = _VALUE.findall(route.path)
    values = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named]
    answers = {str(status): _answer("As asked.", ref(route.shape)) for status in sorted({200, route.status})}
    for status in (*route.errors, 503):
        answers[str(status)] = _answer(_WHY[status], ref("Error"))
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "parameters": [*values, *(_parameter(param) for param in route.params)],
        "responses": answers,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": ref(route.body.__name__)}},
        }
    return operation


def _parameter(param: Param) -> dict[str, Any]:
    schema: Shape = {"type": "string", "minLength": 1}
    if param.kind == "list":
        schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
    elif param.kind == "flag":
        schema = {"type": "boolean"}
    elif param.kind == "count":
        schema = {"type": "integer", "minimum": 1, "maximum": param.most}
    elif param.choices:
        schema = {"type": "string", "enum": list(param.choices)}
    if param.default is not None:
        schema["default"] = param.default
    return {"name": param.name, "in": "query", "required": param.required, "description": param.about, "schema": schema}


def _answer(about: str, shape: Shape) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": shape}}}


def _live() -> dict[str, Any]:
    told = "Server-Sent Events: hello, flights, call, spend, heartbeat."
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "operationId": "live",
        "summary": "Calls as they happen, and spend per minute.",
        "parameters": [],
        "responses": {"200": {"description": told, "content": content}},
    }


def _itself() -> dict[str, Any]:
    return {
        "operationId": "document",
        "summary": "This document.",
        "parameters": [],
        "responses": {"200": _answer("OpenAPI 3.1.", {"type": "object"})},
    }
