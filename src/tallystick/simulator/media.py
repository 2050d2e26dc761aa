"""Media: embeddings, transcriptions, pictures. Source: OpenAI's and Google's API references."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Final

from tallystick.simulator.chat import CREATED, stated_usage
from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Plan

_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def _vector(plan: Plan, place: int) -> list[float]:
    seeds = (zlib.crc32(b"%d:%d:%d" % (plan.answer.seed, place, at)) for at in range(plan.answer.dimensions))
    return [seed % 1024 / 1024 for seed in seeds]


def write_embeddings(plan: Plan) -> Written:
    """OpenAI's embeddings, as numbers or packed."""
    data = []
    for place in range(plan.parts):
        vector: Any = _vector(plan, place)
        if plan.form == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"embedding": vector, "index": place, "object": "embedding"})
    usual = {"prompt_tokens": plan.counts.prompt, "total_tokens": plan.counts.prompt}
    payload = {"data": data, "model": plan.model, "object": "list", **stated_usage(plan, usual)}
    # Packed vectors are texts, which the type calls numbers: the SDK unpacks them itself.
    kind = None if plan.form == "base64" else "openai.types:CreateEmbeddingResponse"
    return Written("json", (Frame(payload, "", kind),))


def write_gemini_embedding(plan: Plan) -> Written:
    """Gemini's embeddings, one or many."""
    found = [{"values": _vector(plan, place)} for place in range(plan.parts)]
    payload = {"embeddings": found} if plan.verb == "batchEmbedContents" else {"embedding": found[0]}
    metadata = stated_usage(plan, {"promptTokenCount": plan.counts.prompt})
    if metadata:
        payload["usageMetadata"] = metadata["usage"]
    return Written("json", (Frame(payload),))


def write_transcription(plan: Plan) -> Written:
    """A transcription, billed by tokens, or by seconds where the script states them; whole or streamed."""
    counts, seconds = plan.counts, plan.answer.audio_seconds
    usual: dict[str, Any] = {"seconds": seconds, "type": "duration"}
    if seconds is None:
        usual = {
            "input_tokens": counts.prompt,
            "output_tokens": counts.completion,
            "total_tokens": counts.prompt + counts.completion,
            "type": "tokens",
            "input_token_details": {"audio_tokens": counts.audio_input, "text_tokens": counts.input},
        }
    stated = stated_usage(plan, usual)
    if not plan.stream:
        return Written("json", (Frame({"text": plan.text, **stated}, plan.text, "openai.types.audio:Transcription"),))
    kind = "openai.types.audio:TranscriptionText"
    frames = [
        Frame({"delta": piece, "type": "transcript.text.delta"}, piece, f"{kind}DeltaEvent") for piece in plan.pieces
    ]
    last = {"text": plan.text, "type": "transcript.text.done", **stated}
    return Written("sse", (*frames, Frame(last, "", f"{kind}DoneEvent"), Frame(b"[DONE]")))


def write_images(plan: Plan) -> Written:
    """Generated pictures: all output is image tokens."""
    counts = plan.counts
    usual = {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": counts.prompt},
        "output_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }
    data = [{"b64_json": _PIXEL} for _ in range(plan.answer.images)]
    payload = {"created": CREATED, "data": data, "size": "1024x1024", **stated_usage(plan, usual)}
    return Written("json", (Frame(payload, "", "openai.types:ImagesResponse"),))
