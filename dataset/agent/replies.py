"""A tool's reply as tokens: the chat template's text between two turns of the model, tokenised once and never again.

What the model generated stays as it is; behind it come the end of its turn, if it has not written that itself, the
reply as a user's turn, and the beginning of its next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

MODEL_TURN = "MODEL-TURN"  # stands where the model's own words would
RESPONSE = ("<tool_response>\n", "\n</tool_response>")


@dataclass(frozen=True)
class EncodedReply:
    """The tokens of a reply, and what the model sees of its images."""

    tokens: list[int]
    token_types: list[int]  # 1: image
    pixel_values: Any = None  # [patches, dim], or None
    grids: Any = None  # [images, 3], or None


class ReplyTemplate:
    """Makes replies for one processor.

    Raises ValueError for a chat template that does not show a turn of the model as it is.
    """

    def __init__(self, processor: Any):
        self.processor, self.tokenizer = processor, processor.tokenizer
        added = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        # of the template and the conversation: a text that holds one would say something else than it seems to
        self.marks = [*added, *(mark.strip() for mark in RESPONSE), "<tool_call>", "</tool_call>"]
        self.end_of_turn = self._between([{"type": "text", "text": ""}])[1]

    def encode(self, text: str, images: Sequence[Image.Image], last_token: int) -> EncodedReply:
        """The reply behind a turn of the model that ended with `last_token`.

        Images, already at the model's size, come first. Special tokens written out in `text` are taken apart.
        """
        parts: list[dict[str, str]] = [{"type": "image"} for _ in images]
        if text or not images:
            parts.append({"type": "text", "text": f"{RESPONSE[0]}{self.harmless(text)}{RESPONSE[1]}"})
        between, end = self._between(parts)
        end_ids = self.tokenizer(end, add_special_tokens=False)["input_ids"] if end else []
        rest = between.removeprefix(end) if end_ids[:1] == [last_token] else between
        inputs = self.processor(
            text=[rest],
            images=list(images) or None,
            padding=False,
            return_tensors="pt",
            add_special_tokens=False,
        )
        tokens = inputs["input_ids"][0].tolist()
        types = inputs.get("mm_token_type_ids")
        return EncodedReply(
            tokens=tokens,
            token_types=[0] * len(tokens) if types is None else types[0].tolist(),
            pixel_values=inputs["pixel_values"] if images else None,
            grids=inputs["image_grid_thw"] if images else None,
        )

    def harmless(self, text: str) -> str:
        """The text with a space in every special mark that it spells out."""
        for mark in self.marks:
            if mark in text:
                text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def _between(self, parts: list[dict[str, str]]) -> tuple[str, str]:
        """The template's text from the end of the model's turn to the beginning of its next one, and the mark that ends
        a turn.
        """
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "question"}]},
            {"role": "assistant", "content": [{"type": "text", "text": MODEL_TURN}]},
            {"role": "user", "content": parts},
        ]
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, found, between = text.rpartition(MODEL_TURN)
        if not found or MODEL_TURN in before:
            raise ValueError(
                "the chat template does not show the model's turn as it is: no conversation can be built"
            )
        eos = self.tokenizer.eos_token or ""
        return between, eos if eos and between.startswith(eos) else ""
