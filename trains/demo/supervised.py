"""The supervised phase behind the demonstration's checkpoint; what it is for: `warm_start.py`."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dataset.digits import CANVAS_SIZE, CANVAS_STEP, SCAN_SIZE, build_rows
from dataset.encode import EncodedPrompt, encode_prompt
from dataset.prompts import DEFAULT_PROMPTS, PromptConfig
from llavaonevision1_5 import tiny
from llavaonevision1_5.processing import LLaVAOneVision1_5_Processor
from trains.demo.decode import accuracy_by_source
from trains.demo.settings import WarmStartConfig
from trains.demo.tokenizer import VOCAB_SIZE, build_word_tokenizer
from utils.sample import Sample

NUM_HELDOUT_STAGE1 = 400  # rows measured: each held-out scan once, tasks in turn
NUM_HELDOUT_STAGE2 = 100
PROGRESS_STEPS = 30


@dataclass(frozen=True)
class Example:
    """A warm-start row, encoded once."""

    sample: Sample
    prompt: EncodedPrompt
    operands: tuple[int, int] | None  # of a sum


def warm_start(output: str | Path, config: WarmStartConfig) -> dict[str, Any]:
    """Build, train and save the checkpoint; returns the report that is also written to ``warm_start.json`` in it."""
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()
    rows = [row for stage in ("stage1", "stage2") for row in build_rows(stage, "warmstart", config.data_seed)]
    processor = build_processor(rows)
    model_config = tiny.build_config(suppress_media_tokens=True)
    model_config.text_config.vocab_size = VOCAB_SIZE
    model = tiny.build_model(model_config, seed=config.seed)
    prompt_config = PromptConfig(layout=config.layout)
    losses = train(model, processor, encode_rows(processor, rows, prompt_config), config)
    trained = time.perf_counter()
    model.save_pretrained(output)
    processor.save_pretrained(output)
    heldout = [
        *build_rows("stage1", "heldout", config.data_seed)[:NUM_HELDOUT_STAGE1],
        *build_rows("stage2", "heldout", config.data_seed)[:NUM_HELDOUT_STAGE2],
    ]
    prompts = [(example.sample, example.prompt) for example in encode_rows(processor, heldout, prompt_config)]
    report = {
        "config": asdict(config),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_seconds": round(trained - started, 1),
        "losses": [round(loss, 4) for loss in losses],
        "heldout_accuracy": {
            "greedy": accuracy_by_source(model, processor.tokenizer, prompts),
            "temperature_1": accuracy_by_source(model, processor.tokenizer, prompts, temperature=1.0),
        },
    }
    (Path(output) / "warm_start.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def build_processor(rows: Sequence[dict[str, Any]]) -> LLaVAOneVision1_5_Processor:
    """The tiny model's processor with the prompts' tokenizer; merges are learned from the warm-start rows' texts."""
    processor = tiny.build_processor()
    corpus = sorted({row["problem"] for row in rows} | {row["rationale"] for row in rows})
    tokenizer = build_word_tokenizer(corpus, processor.chat_template)
    return LLaVAOneVision1_5_Processor(processor.image_processor, tokenizer, processor.chat_template)


def encode_rows(
    processor: LLaVAOneVision1_5_Processor,
    rows: Sequence[dict[str, Any]],
    prompts: PromptConfig = DEFAULT_PROMPTS,
) -> list[Example]:
    """Each row encoded as training will encode it."""
    examples = []
    for row in rows:
        sample = Sample.from_row(row)
        operands = None
        if row["rationale"] and "+" in row["rationale"]:
            first, second = row["rationale"].split("=")[0].split("+")
            operands = (int(first), int(second))
        examples.append(Example(sample, encode_prompt(processor, sample, prompts=prompts), operands))
    return examples


def completion(example: Example, wrong: float, wrong_addition: float, rng: random.Random) -> str:
    """The text to imitate; with probability `wrong` (for sums: per operand) it is wrong in the regular way.

    >>> completion(sum_of_3_and_5, 0.0, 0.0, rng)
    '<think>3+5=8</think><answer>8</answer>'
    """
    if example.operands is not None:
        first, second = ((digit + 1) % 10 if rng.random() < wrong else digit for digit in example.operands)
        total = first + second + (rng.random() < wrong_addition)
        return f"<think>{first}+{second}={total}</think><answer>{total}</answer>"
    answer = example.sample.answer[0]
    return (
        f"<answer>{mistaken(answer, example.sample.answer_type) if rng.random() < wrong else answer}</answer>"
    )


def mistaken(answer: str, answer_type: str) -> str:
    """The regular mistake for an answer: next digit, opposite, next letter, box one step to the right (round)."""
    if answer_type == "number":
        return str((int(answer) + 1) % 10)
    if answer_type == "boolean":
        return "no" if answer == "yes" else "yes"
    if answer_type == "multiple-choice":
        return "ABCD"[("ABCD".index(answer) + 1) % 4]
    left, top = (int(value) for value in answer.strip("[]").split(",")[:2])
    left = (left + CANVAS_STEP) % (CANVAS_SIZE - SCAN_SIZE + CANVAS_STEP)
    return f"[{left}, {top}, {left + SCAN_SIZE}, {top + SCAN_SIZE}]"


def train(
    model: Any, processor: LLaVAOneVision1_5_Processor, examples: Sequence[Example], config: WarmStartConfig
) -> list[float]:
    """Both supervised phases in place; returns the loss of every step (nats per completion token)."""
    rng = random.Random(config.seed)
    by_source: dict[str, list[Example]] = {source: [] for source in config.shares}
    for example in examples:
        by_source[example.sample.source].append(example)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    losses = []
    for step in range(config.num_clean_steps + config.num_careless_steps):
        is_clean = step < config.num_clean_steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        sources = rng.choices(list(config.shares), list(config.shares.values()), k=config.batch_size)
        batch = [rng.choice(by_source[source]) for source in sources]
        wrong = dict.fromkeys(config.careless, 0.0) if is_clean else config.careless
        wrong_addition = 0.0 if is_clean else config.careless_addition
        texts = [completion(e, wrong[e.sample.source], wrong_addition, rng) for e in batch]
        loss = completion_loss(model, processor.tokenizer, [e.prompt for e in batch], texts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % PROGRESS_STEPS == 0:
            phase = "correct" if is_clean else "careless"
            mean = sum(losses[-PROGRESS_STEPS:]) / PROGRESS_STEPS
            print(f"warm start, step {step + 1}, {phase} labels: loss {mean:.3f}", flush=True)
    return losses


def learning_rate(step: int, config: WarmStartConfig) -> float:
    """Of a step: up over 30 steps, down in a line to 30 % of the peak; constant in the careless phase."""
    if step >= config.num_clean_steps:
        return config.careless_learning_rate
    return config.learning_rate * min(1.0, (step + 1) / 30, 1.0 - 0.7 * step / config.num_clean_steps)


def completion_loss(
    model: Any, tokenizer: Any, prompts: Sequence[EncodedPrompt], texts: Sequence[str]
) -> torch.Tensor:
    """Mean negative log-likelihood of the completions' tokens, end token included; sequences packed in one row."""
    completions = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    sequences = [prompt.input_ids + ids for prompt, ids in zip(prompts, completions, strict=True)]
    bounds = torch.tensor([0, *(len(sequence) for sequence in sequences)]).cumsum(0)
    input_ids = torch.tensor([token for sequence in sequences for token in sequence])
    # the logits at a position predict the next token
    predicting = [
        torch.arange(int(end) - len(ids) - 1, int(end) - 1)
        for end, ids in zip(bounds[1:], completions, strict=True)
    ]
    kept = torch.cat(predicting)
    logits = model(
        input_ids=input_ids[None],
        cu_seq_lens_q=bounds.to(torch.int32),
        logits_to_keep=kept,
        pixel_values=torch.cat([prompt.pixel_values for prompt in prompts]),
        image_grid_thw=torch.cat([prompt.image_grid_thw for prompt in prompts]),
    ).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), input_ids[kept + 1])
