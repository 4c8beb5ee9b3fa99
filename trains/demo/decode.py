"""Batched decoding of a small model in this process, without a server: for the warm start's own measurements."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from dataset.encode import EncodedPrompt
from reward import score
from utils.sample import Sample

Prompts = Sequence[tuple[Sample, EncodedPrompt]]


@torch.no_grad()
def decode(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[EncodedPrompt],
    *,
    temperature: float,
    max_new_tokens: int = 48,
    generator: torch.Generator | None = None,
) -> list[str]:
    """One completion per prompt; greedy at temperature 0. A completion that does not end keeps its last token.

    Prompts are padded on the left, so that all of them end in the same column.
    """
    longest = max(len(prompt.input_ids) for prompt in prompts)
    pads = [longest - len(prompt.input_ids) for prompt in prompts]
    input_ids = torch.tensor(
        [[tokenizer.pad_token_id] * pad + prompt.input_ids for pad, prompt in zip(pads, prompts, strict=True)]
    )
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache()
    inputs = {"input_ids": input_ids, "position_ids": positions, "logits_to_keep": 1, **_images(prompts)}
    done = torch.zeros(len(prompts), dtype=torch.bool)
    tokens: list[torch.Tensor] = []
    for _ in range(max_new_tokens):
        logits = (
            model(attention_mask=mask, past_key_values=cache, use_cache=True, **inputs).logits[:, -1].float()
        )
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
        chosen = torch.where(done, tokenizer.eos_token_id, chosen)
        tokens.append(chosen)
        done |= chosen == tokenizer.eos_token_id
        if done.all():
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = positions[:, -1:] + 1
        inputs = {"input_ids": chosen[:, None], "position_ids": positions}
    rows = torch.stack(tokens, dim=1).tolist()
    return [tokenizer.decode([t for t in row if t != tokenizer.eos_token_id]) for row in rows]


def accuracy_by_source(
    model: Any,
    tokenizer: Any,
    prompts: Prompts,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
) -> dict[str, float]:
    """Mean accuracy in [0, 1] per source by the rewards of training, and `all`, the mean over the sources."""
    generator = torch.Generator().manual_seed(seed)
    # Less padding; sources stay together.
    by_length = sorted(prompts, key=lambda prompt: len(prompt[1].input_ids))
    accuracies: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(by_length), batch_size):
        batch = by_length[start : start + batch_size]
        encoded = [prompt for _, prompt in batch]
        completions = decode(model, tokenizer, encoded, temperature=temperature, generator=generator)
        for (sample, _), completion in zip(batch, completions, strict=True):
            output = score(
                completion,
                sample.answer,
                sample.answer_type,
                problem_type=sample.problem_type,
                prompt_type=sample.prompt_type,
                spec=sample.spec,
            )
            accuracies[sample.source].append(output.parts["accuracy"])
    means = {source: sum(values) / len(values) for source, values in sorted(accuracies.items())}
    return means | {"all": sum(means.values()) / len(means)}


def _images(prompts: Sequence[EncodedPrompt]) -> dict[str, torch.Tensor]:
    with_images = [prompt.multi_modal_input for prompt in prompts if prompt.pixel_values is not None]
    if not with_images:
        return {}
    return {key: torch.cat([images[key] for images in with_images]) for key in with_images[0]}
