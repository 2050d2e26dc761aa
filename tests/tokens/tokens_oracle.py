"""tiktoken as the oracle, built from the bundled ranks with tiktoken's own constructors, and texts that try tokenizers."""

import random

import tiktoken
import tiktoken_ext.openai_public as public

from tallystick.tokens.encodings import encoding

NAMES = ("o200k_base", "o200k_harmony", "cl100k_base", "p50k_base", "p50k_edit", "r50k_base")

PIECES = (
    *"abcxyzABCXYZ0123456789",
    *" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u3000",
    *"'’`\"/\\.,;:!?-_()[]{}<>|@#$%^&*+=~",
    *"éßñøſKǅΣσςЖжאבعاكتไทยก็नमस्ते",
    *"你好世界。,「」日本語カタカナひらがな한국어",
    *"\u0301\u0308\u0327\u20dd\u0600\u200b\u200d\ufe0f\ufeff\u00ad\ufffd\ue000\U000e0001\x00\x07",
    *"½²³①Ⅷ٣४",
    *"😀👩🏽‍💻🇩🇪🏳️‍🌈𝒜𝟗𠀀𞤀",
    "'s", "'S", "'ll", "'LL", "'re", "'vE", "'ſ", "n't", "'d ", "it's", "  ", "    ", "\n\n", "\r\n", " \n", "\n ", "\n\n\n ", "//", "/\n",
    " the", " and", "The ", "Hello", "WORLD", "camelCase", "HTTPServer", "snake_case", "3.14159", "1,000,000", "2026-11-21", "https://x.y/z?q=1",
    "<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>", "<|start|>", "<|message|>", "\t\t", "    return x\n", '{"a": [1, 2]}', "€100", "...", "!!!\n\n",
)  # fmt: skip


def oracle(name):
    """tiktoken's own encoding of that name; its constructor is handed our ranks instead of a download."""
    original = public.load_tiktoken_bpe
    public.load_tiktoken_bpe = lambda *_args, **_kwargs: dict(encoding(name).ranks)
    try:
        return tiktoken.Encoding(**public.ENCODING_CONSTRUCTORS[name]())
    finally:
        public.load_tiktoken_bpe = original


def random_text(rng, longest=40):
    """A text of up to `longest` pieces, sometimes of arbitrary characters of all of Unicode."""
    parts = []
    for _ in range(rng.randint(0, longest)):
        kind = rng.random()
        if kind < 0.85:
            parts.append(rng.choice(PIECES) * (1 if rng.random() < 0.9 else rng.randint(2, 9)))
        else:
            point = rng.randrange(0x110000)
            parts.append(chr(point) if not 0xD800 <= point < 0xE000 else " ")
    return "".join(parts)


def texts(seed, number):
    rng = random.Random(seed)
    return [random_text(rng) for _ in range(number)]


def cut(rng, text):
    """The text in pieces of random sizes, mostly small."""
    parts, at = [], 0
    while at < len(text):
        step = rng.choice((1, 1, 1, 2, 3, 5, 8, 30))
        parts.append(text[at : at + step])
        at += step
    return parts
