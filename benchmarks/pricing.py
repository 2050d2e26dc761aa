"""From payload bytes to a Cost with its lines, beside genai-prices and LiteLLM's completion_cost in the same run.

10,000 distinct response bodies (at most 2 kB) of 30 models in five wire formats. Ours decodes the bytes, reads the usage,
finds the card and prices it, lines included. The peers get what they take: genai-prices the decoded body, LiteLLM a
ModelResponse made beforehand. LiteLLM forces an old openai client, so it lives in an environment of its own under
build/peers, made on first use.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path

from _timing import interleaved, machine, median, table
from tallystick.catalog.catalog import Catalog
from tallystick.metering.responses import cost_of_response

AT = datetime(2026, 11, 17, 20, tzinfo=UTC)
PAYLOADS = 10_000
PEERS = Path(__file__).parent.parent / "build" / "peers"
CHAT = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5-nano",
    "o3",
    "o4-mini",
)
RESPONSES = ("gpt-5.1", "gpt-5.2", "gpt-5.6-sol", "gpt-5-pro", "o3-pro")
ANTHROPIC = ("claude-sonnet-4-5-20250929", "claude-opus-4-5-20251101", "claude-haiku-4-5-20251001", "claude-opus-4-6", "claude-opus-5", "claude-sonnet-5-5", "claude-haiku-5-5")  # fmt: skip
GEMINI = ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-3.1-pro-preview")
MISTRAL = ("mistral-small-latest", "mistral-large-4", "mistral-medium-latest", "codestral-latest")


def bodies(seed: int = 1) -> list[tuple[str, str, bytes]]:
    """(api, model, body) for every payload; no two bodies are alike."""
    rng = random.Random(seed)
    kinds = [(chat, CHAT, "openai.chat"), (responses, RESPONSES, "openai.responses"), (anthropic, ANTHROPIC, "anthropic.messages"),
             (gemini, GEMINI, "gemini.generateContent"), (chat, MISTRAL, "mistral.chat")]  # fmt: skip
    models = [(make, model, api) for make, names, api in kinds for model in names]
    made = []
    for number in range(PAYLOADS):
        make, model, api = models[number % len(models)]
        text = "".join(rng.choices("abcdefghij klmnop\\nqrst", k=rng.randrange(40, 900)))
        made.append((api, model, json.dumps(make(rng, number, model, text)).encode()))
    return made


def chat(rng: random.Random, number: int, model: str, text: str) -> dict[str, object]:
    """A Chat Completions body."""
    prompt, answer = rng.randrange(100, 90_000), rng.randrange(10, 4000)
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1763400000 + number, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": rng.randrange(0, prompt), "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": rng.randrange(0, answer), "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        },
        "service_tier": "default", "system_fingerprint": "fp_44709d6fcb",
    }  # fmt: skip


def responses(rng: random.Random, number: int, model: str, text: str) -> dict[str, object]:
    """A Responses body."""
    prompt, answer = rng.randrange(100, 90_000), rng.randrange(10, 4000)
    return {
        "id": f"resp_{number}", "object": "response", "created_at": 1763400000, "status": "completed", "model": model,
        "output": [{"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [{"type": "output_text", "text": text, "annotations": []}]}],
        "usage": {
            "input_tokens": prompt, "input_tokens_details": {"cached_tokens": rng.randrange(0, prompt)},
            "output_tokens": answer, "output_tokens_details": {"reasoning_tokens": rng.randrange(0, answer)},
            "total_tokens": prompt + answer,
        },
        "service_tier": "default",
    }  # fmt: skip


def anthropic(rng: random.Random, number: int, model: str, text: str) -> dict[str, object]:
    """A Messages body."""
    written = rng.randrange(0, 5000)
    return {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn", "stop_sequence": None,
        "content": [{"type": "text", "text": text}],
        "usage": {
            "input_tokens": rng.randrange(1, 9000), "cache_creation_input_tokens": written, "cache_read_input_tokens": rng.randrange(0, 80_000),
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": rng.randrange(1, 4000), "service_tier": "standard",
        },
    }  # fmt: skip


def gemini(rng: random.Random, number: int, model: str, text: str) -> dict[str, object]:
    """A generateContent body."""
    prompt, answer, thoughts = rng.randrange(100, 90_000), rng.randrange(1, 3000), rng.randrange(1, 3000)
    return {
        "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": prompt, "candidatesTokenCount": answer, "thoughtsTokenCount": thoughts,
            "totalTokenCount": prompt + answer + thoughts,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        },
        "modelVersion": model, "responseId": f"r{number}",
    }  # fmt: skip


def ours(payloads: list[tuple[str, str, bytes]], catalog: Catalog) -> None:
    """Bytes to Cost, and its lines."""
    for api, _, body in payloads:
        assert cost_of_response(body, api, catalog, AT).lines


def genai(payloads: list[tuple[str, str, bytes]]) -> None:
    """The same bodies through genai-prices: decode, extract, price."""
    from genai_prices import extract_usage

    places = {"openai.chat": ("openai", "chat"), "openai.responses": ("openai", "responses"), "mistral.chat": ("mistral", "default"),
              "anthropic.messages": ("anthropic", "default"), "gemini.generateContent": ("google", "default")}  # fmt: skip
    for api, _, body in payloads:
        provider, flavour = places[api]
        extracted = extract_usage(json.loads(body), provider_id=provider, api_flavor=flavour)
        extracted.calc_price(genai_request_timestamp=AT)


LITELLM = """
import json, os, sys, time
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from litellm import ModelResponse, Usage
made = []
for line in sys.stdin:
    row = json.loads(line)
    usage = Usage(**row["usage"])
    made.append(ModelResponse(model=row["model"], usage=usage, choices=row["choices"]))
for response in made[:100]:
    litellm.completion_cost(completion_response=response, custom_llm_provider="openai")
started = time.process_time()
for response in made:
    litellm.completion_cost(completion_response=response, custom_llm_provider="openai")
print(len(made) / (time.process_time() - started))
"""


def litellm_rate(payloads: list[tuple[str, str, bytes]]) -> str:
    """LiteLLM's calls per CPU second on the Chat Completions bodies, or why there is none."""
    python = PEERS / "litellm" / "bin" / "python"
    if not python.exists():
        venv.create(PEERS / "litellm", with_pip=True)
        made = subprocess.run(
            [python, "-m", "pip", "install", "-q", "litellm"], capture_output=True, text=True, check=False
        )
        if made.returncode:
            return f"not installed: {made.stderr.strip().splitlines()[-1:]}"
    known = [(model, body) for _, model, body in payloads if model in CHAT[:8]]
    lines = "\n".join(json.dumps({**json.loads(body), "model": model}) for model, body in known[:2000])
    ran = subprocess.run([python, "-c", LITELLM], input=lines, capture_output=True, text=True, check=False)
    return (
        f"{float(ran.stdout.split()[-1]):,.0f}"
        if ran.returncode == 0
        else f"failed: {ran.stderr.strip().splitlines()[-1]}"
    )


def main() -> None:
    """Prints calls per CPU second for each."""
    payloads, catalog = bodies(), Catalog.bundled()
    sizes = sorted(len(body) for _, _, body in payloads)
    few = payloads[:1000]
    taken = interleaved({"tallystick": lambda: ours(payloads, catalog), "genai-prices": lambda: genai(few)}, 7)
    rate, peer = PAYLOADS / median(taken["tallystick"]), len(few) / median(taken["genai-prices"])
    best = PAYLOADS / min(taken["tallystick"])
    print(
        f"{machine()}; {PAYLOADS:,} bodies of {len({m for _, m, _ in payloads})} models, median {sizes[PAYLOADS // 2]} bytes, largest {sizes[-1]}"
    )
    rows = [
        ["tallystick, bytes to Cost with lines", f"{rate:,.0f}", f"{best:,.0f}", f"{rate / peer:.0f}x"],
        ["genai-prices, decoded body to price", f"{peer:,.0f}", f"{len(few) / min(taken['genai-prices']):,.0f}", "1x"],
        ["litellm.completion_cost, ready response to price", litellm_rate(payloads), "", ""],
    ]
    print(table(["calls per CPU second", "median", "best round", "of genai-prices"], rows))
    print("target: 300,000")


if __name__ == "__main__":
    sys.exit(main())
