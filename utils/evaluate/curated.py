"""Any curated parquet as a task of lmms-eval, scored by the training's own rewards: the functions of its task file.

They run inside lmms-eval, in the evaluation environment. Questions come without the mode's instruction, which the chat
template adds (`prepare`); what a sample scores is the `accuracy` part of its reward, as in `utils.evaluate.offline`.
"""

from __future__ import annotations

import io
import json
from typing import Any

from reward import score
from reward.types import UNJUDGED
from utils.evaluate.scoring import SAMPLE_SCORE
from utils.sample import IMAGE_MARK

METRIC = "accuracy"


def doc_to_messages(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> list[dict[str, Any]]:
    """One user turn with images where the question has its marks."""
    del lmms_eval_specific_kwargs
    images = iter(doc_to_visual(doc))
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(doc["problem"].split(IMAGE_MARK)):
        if position:
            parts.append({"type": "image", "url": next(images)})
        if piece:
            parts.append({"type": "text", "text": piece})
    return [{"role": "user", "content": parts}]


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """The images, decoded."""
    from PIL import Image

    return [Image.open(io.BytesIO(image["bytes"])) for image in doc["images"]]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    """The question without its image marks."""
    del lmms_eval_specific_kwargs
    return doc["problem"].replace(IMAGE_MARK, "")


def doc_to_target(doc: dict[str, Any]) -> str:
    """The reference answers."""
    return " | ".join(doc["answer"])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Accuracy of one answer, from 0 to 1. Raises RuntimeError for an answer that the rules could not judge."""
    spec = doc.get("spec")
    output = score(
        results[0],
        doc["answer"],
        doc["answer_type"],
        problem_type=doc.get("problem_type"),
        spec=json.loads(spec) if isinstance(spec, str) else spec,
    )
    if output.status in UNJUDGED:
        raise RuntimeError(f"sample {doc['id']}: {output.trace[0]}")
    accuracy = float(output.parts["accuracy"])
    return {METRIC: accuracy, SAMPLE_SCORE: accuracy, "sample_id": doc["id"], "source": doc.get("source", "")}
