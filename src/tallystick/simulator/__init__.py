"""A provider on this machine that speaks the real wire formats to real SDKs, and says what truly happened.

    simulator   Simulator: the server and its calls      answer     Answer, Script: what is said, what goes wrong
    request     Request: what was asked                  call       Call: what was served, the truth
    plan        an answer for one request, in counts     frames     its events as bytes
    http        the connection                           failures   errors in each provider's own shape
    sdk         the SDKs' own types, where installed     text       words and pieces

`chat`, `compatible`, `responses`, `media`, `messages`, `gemini`, `bedrock` each write one family of formats.
"""

from tallystick.simulator.answer import Answer, Function, Script
from tallystick.simulator.call import Call
from tallystick.simulator.request import Request
from tallystick.simulator.simulator import Simulator

__all__ = ["Answer", "Call", "Function", "Request", "Script", "Simulator"]
