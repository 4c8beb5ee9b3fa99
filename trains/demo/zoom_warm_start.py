"""The zoom demo's checkpoint: a tiny LLaVA-OneVision-1.5 that knows how to call the zoom and seldom cares to.

    python -m trains.demo.zoom_warm_start --output pretrained/tiny-zoom

Supervised on conversations about the 300 scans of the `warmstart` split, which are held with the real zoom and the real
replies (`dataset.agent.conversation`), three phases:

1. it zooms into the right cell and reads the digit: places, calls, and reading, of crops alone. The prompt is the
   image, without the instructions, which would be most of the tokens;
2. the same under the whole prompt;
3. carelessly: mostly it answers at once, by guessing, for the digit cannot be read without a zoom; where it zooms, it
   often looks into a wrong cell, and misreads what it sees now and then.

Nothing ever teaches it to read the digit at the resolution of the canvas: a guess has nothing to do with the image.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dataset.agent.conversation import Conversation, views_of
from dataset.agent.registry import get_tool
from dataset.agent.replies import ReplyTemplate
from dataset.agent.types import AgentSettings, Generated, ToolError, Trajectory
from dataset.encode import EncodedPrompt, encode_prompt, image_limits
from dataset.prompts import RELEASE_SYSTEM, PromptConfig, tools_prompt
from dataset.zoom_digits import CELLS, QUESTION, SHOWN_SIZE, box_of, build_rows, cell_of
from llavaonevision1_5 import tiny
from llavaonevision1_5.processing import LLaVAOneVision1_5_Processor
from llavaonevision1_5.tiny import SPECIAL_IDS
from trains.demo.tokenizer import VOCAB_SIZE, build_word_tokenizer
from utils.sample import Sample

TOOLS = ("zoom",)
LAYOUT = "release"  # prompts.layout: the image is the last thing before the model's turn
MAX_PIXELS = SHOWN_SIZE**2
SETTINGS = AgentSettings(tools=TOOLS, max_turns=3, max_images=2, max_tokens=400)
PROGRESS_STEPS = 30


@dataclass(frozen=True)
class ZoomWarmStartConfig:
    """The supervised phase; the defaults are those of the demonstration."""

    seed: int = 219
    num_image_steps: int = 220
    num_clean_steps: int = 60
    num_careless_steps: int = 60
    image_batch_size: int = 40
    batch_size: int = 20
    learning_rate: float = 1e-3  # warmed up over 30 steps, then down to 30 % by the end of the second phase
    careless_learning_rate: float = 3e-4
    data_seed: int = 219
    num_heldout: int | None = None  # rows that the report measures; None: all
    at_once: float = 0.65  # probability of a guess without a zoom, in the third phase
    wrong_cell: float = 0.35  # of a zoom into another cell
    misread: float = 0.3  # of the next digit in place of the one that was seen


@dataclass(frozen=True)
class Example:
    """One conversation, encoded: what stands before and behind, and which of it to imitate."""

    prompt: EncodedPrompt
    trajectory: Trajectory


class ToolsHere:
    """The tools in this process: the calls are our own."""

    async def call(
        self, name: str, arguments: Mapping[str, Any], context: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        """As `dataset.agent.pool.ToolPool.call`."""
        try:
            return get_tool(name).run(arguments, {**context, "seconds": seconds})
        except ToolError as error:
            return {"refused": str(error)}


def zoom_call(box: Sequence[int]) -> str:
    """The turn that zooms."""
    call = {"name": "zoom", "arguments": {"bbox_2d": list(box)}}
    return f"<tool_call>{json.dumps(call, separators=(',', ':'))}</tool_call>"


def script(sample: Sample, config: ZoomWarmStartConfig | None, rng: random.Random) -> list[str]:
    """The turns to imitate; without a config those of someone who is careful."""
    digit, cell = int(sample.answer[0]), cell_of(sample.id)
    if config is not None:
        if rng.random() < config.at_once:
            return [f"<answer>{rng.randrange(10)}</answer>"]
        if rng.random() < config.wrong_cell:
            cell = rng.randrange(CELLS), rng.randrange(CELLS)
            digit = rng.randrange(10)  # there is nothing to read
        if rng.random() < config.misread:
            digit = (digit + 1) % 10
    return [zoom_call(box_of(*cell)), f"<answer>{digit}</answer>"]


async def converse(
    processor: Any, conversation: Conversation, sample: Sample, prompt: EncodedPrompt, turns: Sequence[str]
) -> Example:
    """The conversation of one sample in which the model says `turns`."""
    said = iter(turns)

    async def generate(ids: list[int], images: list[str], max_new_tokens: int) -> Generated:
        del ids, images, max_new_tokens
        tokens = processor.tokenizer(next(said))["input_ids"] + [processor.tokenizer.eos_token_id]
        return Generated(tokens, [0.0] * len(tokens), [0] * len(tokens), "stop")

    views = views_of(sample.images, prompt.image_sizes, prompt.image_data)
    trajectory = await conversation.run(
        prompt.input_ids, views, generate, tools=TOOLS, max_turn_tokens=SETTINGS.max_tokens
    )
    return Example(prompt, trajectory)


def encode(
    processor: Any, rows: Sequence[dict[str, Any]], config: ZoomWarmStartConfig | None, seed: int
) -> list[Example]:
    """A conversation for each row."""
    rng, limits = random.Random(seed), image_limits(processor, MAX_PIXELS)
    rule = {"factor": limits.factor, "min_pixels": limits.min_pixels, "max_pixels": limits.max_pixels}
    conversation = Conversation(ReplyTemplate(processor), ToolsHere(), SETTINGS, rule)

    async def all_of_them() -> list[Example]:
        examples = []
        for row in rows:
            sample = Sample.from_row(row)
            prompt = encode_prompt(
                processor, sample, prompts=PromptConfig(layout=LAYOUT, tools=TOOLS), max_pixels=MAX_PIXELS
            )
            turns = script(sample, config, rng)
            examples.append(await converse(processor, conversation, sample, prompt, turns))
        return examples

    return asyncio.run(all_of_them())


def build_processor() -> LLaVAOneVision1_5_Processor:
    """The tiny model's processor with a tokenizer for this demo's prompt, calls and replies."""
    processor = tiny.build_processor()
    boxes = [zoom_call(box_of(column, row)) for column in range(CELLS) for row in range(CELLS)]
    corpus = [
        QUESTION,
        tools_prompt(TOOLS),
        RELEASE_SYSTEM,
        *boxes,
    ]
    # many times over: the merges are for these words, before those of other prompts
    tokenizer = build_word_tokenizer(corpus * 50, processor.chat_template)
    return LLaVAOneVision1_5_Processor(processor.image_processor, tokenizer, processor.chat_template)


def without_words(example: Example) -> Example:
    """The conversation whose prompt is the image and the opening of the model's turn."""
    ids = example.prompt.input_ids
    image = ids.index(SPECIAL_IDS["<|vision_start|>"])
    return replace(example, prompt=replace(example.prompt, input_ids=ids[image:]))


def trajectory_loss(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Mean negative log-likelihood of the model's own tokens, packed in one row; replies and prompts are only read."""
    sequences = [e.prompt.input_ids + e.trajectory.tokens for e in examples]
    bounds = torch.tensor([0, *(len(sequence) for sequence in sequences)]).cumsum(0)
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    own = torch.tensor([m for e in examples for m in [0] * len(e.prompt.input_ids) + e.trajectory.mask])
    kept = own.nonzero()[:, 0] - 1  # the logits at a position predict the next token
    pixels, grids = [], []
    for example in examples:  # in the order of their marks
        pixels += [example.prompt.pixel_values, *example.trajectory.pixel_values]
        grids += [example.prompt.image_grid_thw, *example.trajectory.grids]
    logits = model(
        input_ids=ids[None],
        cu_seq_lens_q=bounds.to(torch.int32),
        logits_to_keep=kept,
        pixel_values=torch.cat(pixels),
        image_grid_thw=torch.cat(grids),
    ).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), ids[kept + 1])


def train(
    model: Any, clean: Sequence[Example], careless: Sequence[Example], config: ZoomWarmStartConfig
) -> list[float]:
    """All phases in place; returns the loss of every step (nats per token of the model's)."""
    rng = random.Random(config.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    phases = {
        "image alone": ([without_words(e) for e in clean], config.image_batch_size, config.num_image_steps),
        "careful": (clean, config.batch_size, config.num_clean_steps),
        "careless": (careless, config.batch_size, config.num_careless_steps),
    }
    losses = []
    for step, phase in enumerate(name for name, (_, _, steps) in phases.items() for _ in range(steps)):
        examples, batch_size, _ = phases[phase]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        loss = trajectory_loss(model, rng.choices(examples, k=batch_size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % PROGRESS_STEPS == 0:
            mean = sum(losses[-PROGRESS_STEPS:]) / PROGRESS_STEPS
            print(f"warm start, step {step + 1}, {phase}: loss {mean:.3f}", flush=True)
    return losses


def learning_rate(step: int, config: ZoomWarmStartConfig) -> float:
    """Of a step; constant in the careless phase."""
    num_clean = config.num_image_steps + config.num_clean_steps
    if step >= num_clean:
        return config.careless_learning_rate
    return config.learning_rate * min(1.0, (step + 1) / 30, 1.0 - 0.7 * step / num_clean)


@torch.no_grad()
def accuracies(
    model: Any, processor: Any, rows: Sequence[dict[str, Any]], batch_size: int = 100
) -> dict[str, float]:
    """What the model can do with held-out rows when it is made to: `at_once`, the digit without a zoom; `after_zoom`,
    the digit after a zoom into the right cell; both the most likely of the ten digits. `right_cell`: share of rows in
    which the most likely box, where it zooms, is that of the digit's cell.
    """
    examples = encode(processor, rows, None, seed=0)
    digits = torch.tensor([processor.tokenizer(str(digit))["input_ids"][0] for digit in range(10)])
    labels = torch.tensor([int(row["answer"][0]) for row in rows])
    before = processor.tokenizer("<answer>")["input_ids"]
    end = 1 + len(processor.tokenizer("</answer>")["input_ids"])  # <|im_end|>
    at_once, after_zoom, cell = [], [], []
    for start in range(0, len(rows), batch_size):
        part = examples[start : start + batch_size]
        ids = [e.prompt.input_ids + before for e in part]
        pixels = [[e.prompt.pixel_values] for e in part]
        grids = [[e.prompt.image_grid_thw] for e in part]
        at_once.append(_last_logits(model, ids, pixels, grids)[:, digits].argmax(-1))
        whole = [e.prompt.input_ids + e.trajectory.tokens[: -end - 1] for e in part]
        pixels = [[e.prompt.pixel_values, *e.trajectory.pixel_values] for e in part]
        grids = [[e.prompt.image_grid_thw, *e.trajectory.grids] for e in part]
        after_zoom.append(_last_logits(model, whole, pixels, grids)[:, digits].argmax(-1))
        for example in part:
            cell.append(_calls_right(model, example))
    return {
        "at_once": float((torch.cat(at_once) == labels).float().mean()),
        "after_zoom": float((torch.cat(after_zoom) == labels).float().mean()),
        "right_cell": sum(cell) / len(cell),
    }


def _last_logits(model: Any, ids: list[list[int]], pixels: list[list], grids: list[list]) -> torch.Tensor:
    """Logits `[sequences, vocabulary]` at the end of each sequence."""
    bounds = torch.tensor([0, *(len(sequence) for sequence in ids)]).cumsum(0)
    return model(
        input_ids=torch.tensor([token for sequence in ids for token in sequence])[None],
        cu_seq_lens_q=bounds.to(torch.int32),
        logits_to_keep=bounds[1:] - 1,
        pixel_values=torch.cat([p for part in pixels for p in part]),
        image_grid_thw=torch.cat([g for part in grids for g in part]),
    ).logits[0]


def _calls_right(model: Any, example: Example) -> bool:
    """Whether each token of the right call is the most likely one behind those before it, from the second one on."""
    call = example.trajectory.tokens[: example.trajectory.steps[0].num_tokens]
    ids, first = example.prompt.input_ids + call, len(example.prompt.input_ids)
    logits = model(
        input_ids=torch.tensor(ids)[None],
        cu_seq_lens_q=torch.tensor([0, len(ids)], dtype=torch.int32),
        logits_to_keep=torch.arange(first, len(ids) - 1),
        pixel_values=example.prompt.pixel_values,
        image_grid_thw=example.prompt.image_grid_thw,
    ).logits[0]
    # `<answer>` and `<tool_call>` begin alike: what counts are the tokens behind the tag's
    tag = 8
    return bool((logits.argmax(-1) == torch.tensor(call[1:]))[tag:].all())


def warm_start(output: str | Path, config: ZoomWarmStartConfig) -> dict[str, Any]:
    """Build, train and save the checkpoint; returns the report that is also written to ``warm_start.json`` in it."""
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()
    processor = build_processor()
    rows = build_rows("warmstart", config.data_seed)
    clean = encode(processor, rows, None, config.seed)
    careless = encode(processor, rows, config, config.seed)
    model_config = tiny.build_config(suppress_media_tokens=True)
    model_config.text_config.vocab_size = VOCAB_SIZE
    model = tiny.build_model(model_config, seed=config.seed)
    losses = train(model, clean, careless, config)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    heldout = build_rows("heldout", config.data_seed)[: config.num_heldout]
    report = {
        "config": asdict(config),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.perf_counter() - started, 1),
        "losses": [round(loss, 4) for loss in losses],
        "heldout": accuracies(model, processor, heldout),
        "num_prompt_tokens": len(clean[0].prompt.input_ids),
        "num_trajectory_tokens": len(clean[0].trajectory.tokens),
    }
    (Path(output) / "warm_start.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def main() -> None:
    defaults = ZoomWarmStartConfig()
    parser = argparse.ArgumentParser(description="Build and warm-start the zoom demo's tiny checkpoint.")
    parser.add_argument("--output", default="pretrained/tiny-zoom", help="checkpoint folder")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of weights and order of the data")
    parser.add_argument(
        "--image-steps", type=int, default=defaults.num_image_steps, help="default: %(default)s"
    )
    parser.add_argument(
        "--clean-steps", type=int, default=defaults.num_clean_steps, help="default: %(default)s"
    )
    parser.add_argument(
        "--careless-steps", type=int, default=defaults.num_careless_steps, help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = ZoomWarmStartConfig(
        seed=args.seed,
        num_image_steps=args.image_steps,
        num_clean_steps=args.clean_steps,
        num_careless_steps=args.careless_steps,
    )
    report = warm_start(args.output, config)
    print(f"{args.output}: {report['num_parameters']:,} parameters, {report['seconds']} s")
    for name, value in report["heldout"].items():
        print(f"  held-out {name:12} {value:.3f}")


if __name__ == "__main__":
    main()
