"""Two checkpoint folders: their weights, then greedy answers and log-probabilities on text, one image, two images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from llavaonevision1_5 import tied
from llavaonevision1_5.shards import read_json
from utils.checkpoint import qwen

IMAGE_SIDE = 112  # pixels; small enough for any size of model on a CPU
QUESTIONS = {
    "text": "What is 12 + 30?",
    "one image": "<image>What is shown?",
    "two images": "<image><image>Compare them.",
}


@dataclass(frozen=True)
class Comparison:
    """One prompt: tokens scored, largest |difference| of their log-probabilities in nats, equality of greedy text."""

    prompt: str
    num_tokens: int
    max_difference: float
    same_text: bool


def compare(first: str | Path, second: str | Path, *, new_tokens: int = 32) -> list[Comparison]:
    """Load both folders in turn (never both at once) and compare. The first folder's greedy answers are the text that
    both score. An exported folder runs through this package's code here: what is compared is weights, configuration
    and processor, not the published remote code.
    """
    answers, scores = _run(Path(first), new_tokens, None)
    other_answers, other_scores = _run(Path(second), new_tokens, answers)
    return [
        Comparison(
            name,
            len(scores[name]),
            float((scores[name] - other_scores[name]).abs().max()),
            answers[name] == other_answers[name],
        )
        for name in QUESTIONS
    ]


def compare_weights(first: str | Path, second: str | Path) -> str:
    """One sentence: equal weights, weights that differ only in dtype, or how many differ in more than that.

    Of two dtypes the coarser one decides: a weight differs only in dtype when the finer one, rounded, is the coarser.
    """
    left, right = _weights(Path(first)), _weights(Path(second))
    _leave_out_tied_head(Path(first), left, right)
    _leave_out_tied_head(Path(second), right, left)
    dtypes, others = set(), []
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            others.append(name)
            continue
        one, two = left[name](), right[name]()
        if one.dtype != two.dtype:
            dtypes.add(f"{one.dtype} against {two.dtype}".replace("torch.", ""))
        coarser = max(one.dtype, two.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        if one.shape != two.shape or not torch.equal(one.to(coarser), two.to(coarser)):
            others.append(name)
    if others:
        return f"{len(others)} weights differ, first {others[0]}"
    if dtypes:
        return (
            f"the weights differ only in dtype ({', '.join(sorted(dtypes))}): log-probabilities differ by rounding; "
            "give a --tolerance"
        )
    return "the weights are equal"


def _leave_out_tied_head(folder: Path, own: dict[str, Any], others: dict[str, Any]) -> None:
    """A file may hold a tied output layer twice, as training writes it, or once, as it is published."""
    is_tied = tied.is_tied(read_json(folder / "config.json"))
    if is_tied and tied.HEAD in own and tied.HEAD not in others and tied.is_copy(folder):
        del own[tied.HEAD]


def _weights(folder: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Readers of the folder's weights by name: one tensor at a time is in memory."""
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file = safe_open(path, "pt")
        readers |= {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118
    return readers


@torch.no_grad()
def _run(
    folder: Path, new_tokens: int, forced: dict[str, list[int]] | None
) -> tuple[dict[str, list[int]], dict[str, torch.Tensor]]:
    from dataset.encode import encode_prompt

    model, processor = _model(folder), _processor(folder)
    answers, scores = {}, {}
    for name in QUESTIONS:
        prompt = encode_prompt(processor, _sample(name))
        ids = torch.tensor([prompt.input_ids])
        pixels = prompt.multi_modal_input
        types = None if prompt.mm_token_type_ids is None else torch.tensor([prompt.mm_token_type_ids])
        mask = torch.ones_like(ids)
        output = model.generate(
            ids,
            attention_mask=mask,
            mm_token_type_ids=types,
            **pixels,
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        answers[name] = output[0, ids.shape[1] :].tolist()
        answer = (forced or answers)[name]
        whole = torch.tensor([prompt.input_ids + answer])
        if types is not None:
            types = torch.cat([types, torch.zeros(1, len(answer), dtype=types.dtype)], dim=1)
        logits = model(whole, mm_token_type_ids=types, **pixels).logits[0, ids.shape[1] - 1 : -1].float()
        scores[name] = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).squeeze(-1)
    return answers, scores


def _model(folder: Path) -> Any:
    """In our class, whatever code its files bring; Qwen-VL in transformers' own."""
    from llavaonevision1_5.modeling import LLaVAOneVision1_5_ForConditionalGeneration

    if qwen.is_qwen(folder):
        return qwen.load(folder)[0].eval()
    return LLaVAOneVision1_5_ForConditionalGeneration.from_pretrained(folder, dtype="auto").eval()


def _processor(folder: Path) -> Any:
    """The folder's tokenizer and image settings in our processor class, whatever class its files name."""
    if qwen.is_qwen(folder):
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(folder)
    from llavaonevision1_5.processing import LLaVAOneVision1_5_Processor

    return LLaVAOneVision1_5_Processor.from_pretrained(folder)


def _sample(name: str) -> Any:
    from PIL import Image

    from dataset.images import to_png_bytes
    from utils.sample import Sample

    problem = QUESTIONS[name]
    pictures = []
    for number in range(problem.count("<image>")):
        ramp = torch.arange(IMAGE_SIDE**2 * 3).reshape(IMAGE_SIDE, IMAGE_SIDE, 3) * (7 + 4 * number) % 256
        picture = Image.fromarray(ramp.to(torch.uint8).numpy())
        pictures.append({"bytes": to_png_bytes(picture), "path": None})
    return Sample(
        id=name,
        images=tuple(pictures),
        problem=problem,
        answer=("42",),
        problem_type="check",
        answer_type="any",
        source="check",
        prompt_type="answer",
        spec=None,
    )
