"""botocore: boto3's bedrock-runtime clients, metered one HTTP attempt at a time. A call is met before its request is
signed, so that a body we change is signed as it is sent; each retry of botocore is signed, and met, anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MethodType
from typing import Any, Final

from tallystick.capture.attempt import Begin, MeterFor, asked, lowered, original, ours, plain_body
from tallystick.capture.patching import Patches
from tallystick.capture.urllib3 import Body, answer, tap
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.leave import Denied

_endpoint: Final = import_module("botocore.endpoint")
_awsrequest: Final = import_module("botocore.awsrequest")
_client: Final = import_module("botocore.client")

_SERVICE: Final = "bedrock-runtime"
_PROVIDER: Final = "aws"
"""Who bills, whatever the endpoint's host is called."""
_NOT_SENT: Final = ConnectionRefusedError("the request was not sent")
_KEY: Final = "tallystick"
"""Where a request's context keeps its call between signing and sending; the context itself is never sent."""


def handles(client: object) -> bool:
    """Whether `attach` knows what to do with this object: a client of bedrock-runtime."""
    return isinstance(client, _client.BaseClient) and client.meta.service_model.service_name == _SERVICE


def attach(client: Any, meter_for: MeterFor) -> None:
    """Meters the calls of one client."""
    endpoint = client._endpoint  # noqa: SLF001 - a client has no other way to what it sends
    for name, function in _hooks(Begin(meter_for)).items():
        setattr(endpoint, name, MethodType(function, endpoint))


def patch(meter_for: MeterFor) -> Callable[[], None]:
    """Meters every bedrock-runtime client of this process; the function returned undoes it."""
    patches = Patches()
    for name, function in _hooks(Begin(meter_for)).items():
        patches.wrap(_endpoint.Endpoint, name, functools.partial(_instead, function))
    return patches.undo


def _instead(function: Callable[..., Any], _plain: object) -> Callable[..., Any]:
    return function


_HOOKED: Final = ("create_request", "_send", "_get_response")


def _hooks(begin: Begin) -> Mapping[str, Callable[..., Any]]:
    """What takes the place of an endpoint's methods: making and signing one attempt, sending it, and both together."""
    make, send, respond = (original(getattr(_endpoint.Endpoint, name)) for name in _HOOKED)

    @functools.wraps(make)
    def create_request(endpoint: Any, params: dict[str, Any], operation_model: Any = None) -> Any:
        call = _begun(endpoint, params, begin)
        if call is None:
            return make(endpoint, params, operation_model)
        leave = asked(call)
        context = params["context"]
        context[_KEY] = call.refusal(leave) if isinstance(leave, Denied) else call
        body = None if isinstance(leave, Denied) else call.outgoing()
        try:
            return make(endpoint, params if body is None else {**params, "body": body}, operation_model)
        except BaseException:
            context.pop(_KEY)
            if not isinstance(leave, Denied):
                call.failed(_NOT_SENT)
            raise

    @functools.wraps(send)
    def send_metered(endpoint: Any, request: Any) -> Any:
        found = (request.context or {}).pop(_KEY, None)
        if found is None:
            return send(endpoint, request)
        if isinstance(found, tuple):
            raw = answer(found, preload_content=False, decode_content=False)
            return _awsrequest.AWSResponse(request.url, raw.status, raw.headers, raw)
        return _sent(functools.partial(send, endpoint), request, found)

    @functools.wraps(respond)
    def get_response(endpoint: Any, request: Any, operation_model: Any, context: dict[str, Any]) -> Any:
        try:
            return respond(endpoint, request, operation_model, context)
        finally:
            left = context.pop(_KEY, None)
            if left is not None and not isinstance(left, tuple):
                # Somebody's before-send hook answered in the provider's place.
                left.failed(_NOT_SENT)

    made = (ours(create_request, make), ours(send_metered, send), ours(get_response, respond))
    return dict(zip(_HOOKED, made, strict=True))


def _begun(endpoint: Any, params: Mapping[str, Any], begin: Begin) -> CallMeter | None:
    method, url = params["method"], params["url"]
    if endpoint._endpoint_prefix != _SERVICE or not begin.wanted(method, url, _PROVIDER):  # noqa: SLF001
        return None
    return begin.call(method, url, lowered(params["headers"]), plain_body(params["body"]), _PROVIDER)


def _sent(send: Callable[[Any], Any], request: Any, call: CallMeter) -> Any:
    """Sends one attempt. botocore has read a plain answer whole when it comes back; a stream is tapped."""
    try:
        response = send(request)
    except BaseException as error:
        call.failed(error)
        raise
    if request.stream_output:
        tap(response.raw, call, response.raw.connection)
        response.headers = type(response.headers)(response.raw.headers)
        return response
    call.answered(response.status_code, lowered(response.headers))
    body = Body(call)
    body.take(response.content)
    body.end()
    response._content = body.hand(None)  # noqa: SLF001
    return response
