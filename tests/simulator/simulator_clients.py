"""Real clients that talk to a simulator."""

import http.client
import json

import anthropic
import boto3
import openai
from botocore.config import Config
from google import genai

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
CHAT = {"model": "gpt-4o", "messages": HELLO}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


def openai_at(sim, name="openai", **options):
    return openai.OpenAI(base_url=sim.urls[name], api_key="none", **options)


def claude_at(sim, **options):
    return anthropic.Anthropic(base_url=sim.anthropic_url, api_key="none", **options)


def bedrock_at(sim):
    return boto3.client(
        "bedrock-runtime", endpoint_url=sim.bedrock_url, region_name="us-east-1", aws_access_key_id="none",
        aws_secret_access_key="none", config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
    )  # fmt: skip


def gemini_at(sim):
    return genai.Client(api_key="none", vertexai=False, http_options={"base_url": sim.gemini_url})


def post(sim, path, body, headers=()):
    """The response and its whole body, with nothing between."""
    connection = http.client.HTTPConnection("127.0.0.1", sim.port)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **dict(headers)})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()
