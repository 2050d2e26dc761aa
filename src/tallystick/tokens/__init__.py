"""How much text is how many tokens: exactly where the tokenizer is public, with bounds and a reason everywhere.

    bpe           the readable reference             encodings     bundled ranks, guarded fast paths
    boundaries    where a text may be cut            stream        StreamCounter
    count         Count, count_text                  calibration   learned ratios of closed models
    chat          message and tool overhead          media         images, sound, PDF
    rules         the dated data files

Importing this room loads no tokenizer; the first count does.
"""

from tallystick.tokens.calibration import Calibration, content_class
from tallystick.tokens.chat import count_messages
from tallystick.tokens.count import Count, count_chunks, count_text
from tallystick.tokens.encodings import Encoding, decode, encoding, encoding_for
from tallystick.tokens.media import audio_tokens, image_size, image_tokens, pdf_tokens
from tallystick.tokens.stream import StreamCounter

__all__ = [
    "Calibration",
    "Count",
    "Encoding",
    "StreamCounter",
    "audio_tokens",
    "content_class",
    "count_chunks",
    "count_messages",
    "count_text",
    "decode",
    "encoding",
    "encoding_for",
    "image_size",
    "image_tokens",
    "pdf_tokens",
]
