"""How much memory and time a configuration needs, from formulas: the numbers behind `python -m utils.doctor`.

Nothing is loaded: sizes come from the checkpoint's `config.json`. Bytes are exact where a tensor has a fixed shape
(weights, gradients, optimizer, logits, KV cache) and counted operation by operation where autograd keeps them
(activations). Not counted: CUDA context and NCCL buffers (`CUDA_CONTEXT_BYTES`, a flat allowance), fragmentation.
`benchmarks/actor_step.py` measures the same quantities; docs/gpu.md has both side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.doctor.model_sizes import Architecture

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CUDA_CONTEXT_BYTES = int(1.5 * GIB)  # context, cuBLAS and NCCL workspaces: an allowance, not measured
PIXEL_BYTES = 4  # processors return float32


@dataclass(frozen=True)
class Line:
    """One line of an estimate: what, how many bytes, by which formula, and where (`gpu`, `cpu`)."""

    what: str
    num_bytes: float
    formula: str
    place: str = "gpu"


@dataclass(frozen=True)
class Training:
    """What decides the memory of one trainer rank. Images are counted in their tokens for the language model."""

    ranks: int
    tokens: int  # of the largest micro-batch, image tokens included
    image_tokens: int  # among them
    prompt_image_tokens: int  # of all prompts of a step: each rank sees them once, when they are shared out
    dtype: str = "bfloat16"
    master_dtype: str = "float32"
    checkpointing: bool = True
    flash: bool = True
    offload: bool = False
    block: int = 1024  # of the vocabulary
    frozen_parameters: int = 0
    reference: str | None = None  # where the weights of a reference model lie: "gpu", "cpu", or there is none
    critic_frozen: int | None = (
        None  # parameters of the critic of PPO that are not trained; None: there is none
    )


def layer_activation_bytes(model: Architecture, dtype: str, *, flash: bool = True) -> int:
    """Bytes per token that autograd keeps of one decoder layer, in the forward pass without checkpointing.

    Counted from the operations: each RMSNorm its input and its normalised value (float32 inside) and its output; the
    rotated and the normalised queries and keys; values; the attention's output; four tensors of the feed-forward width.
    """
    size, wide = BYTES[dtype], 4
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    norm = (wide if size == 2 else 0) + 2 * size  # input in float32, normalised, output
    total = 2 * model.hidden * (norm + (size if size == 4 else 0))
    if model.has_qk_norm:
        total += (queries + keys) * ((wide if size == 2 else size) + size)
    total += (queries + 2 * keys) * size  # rotated queries and keys, values
    total += queries * size * (1 if flash else 2)  # attention output; sdpa over segments keeps a joined copy
    return total + 4 * model.ffn * size


def vision_activation_bytes(model: Architecture, dtype: str) -> int:
    """Bytes per patch that autograd keeps of one block of the vision tower without checkpointing."""
    size = BYTES[dtype]
    feed_forward = (4 if model.vision_gated else 2) * model.vision_ffn
    # two norms (input, output), joint query-key-value, rotated query and key, attention output twice
    return size * (4 * model.vision_width + 3 * model.vision_width + 4 * model.vision_width + feed_forward)


def trainer_lines(model: Architecture, run: Training) -> list[Line]:
    """The memory of one trainer rank at its peak: backward has begun, gradients of earlier micro-batches are there.

    Above what the forward pass keeps stands the larger of two moments: the output layer with its gradient, or one layer
    recomputed (with checkpointing) together with the gradients inside it.
    """
    size, master, ranks = BYTES[run.dtype], BYTES[run.master_dtype], run.ranks
    total, trained = model.parameters, model.parameters - run.frozen_parameters
    home = "cpu" if run.offload else "gpu"
    root = model.vision_parameters - model.vision_layers * model.vision_layer_parameters + model.hidden
    root += model.embedding_parameters  # lm_head; FSDP2 keeps gathered what is not in a layer
    gathered = root + 2 * model.layer_parameters + (0 if model.tied else model.embedding_parameters)
    patches = run.image_tokens * model.merge**2
    layer = run.tokens * layer_activation_bytes(model, run.dtype, flash=run.flash)
    inside = run.tokens * (3 * model.ffn + 2 * model.hidden) * size
    head = model.embedding_parameters * size + run.tokens * (
        model.hidden * (4 + size) + run.block * (8 + size)
    )
    vision = 4 * model.vision_width * size  # the projector, per patch
    if run.checkpointing:
        kept, how = model.layers * run.tokens * model.hidden * size, f"L x T x H x {size}"
        vision += model.vision_layers * model.vision_width * size
        highest = max(head, layer + inside)
    else:
        kept, how = (
            model.layers * layer,
            f"L x T x {layer // run.tokens} bytes that autograd keeps of a layer",
        )
        vision += model.vision_layers * vision_activation_bytes(model, run.dtype)
        highest = max(head, inside)
    pixels = (run.prompt_image_tokens + run.image_tokens) * model.merge**2 * model.patch_dim
    reference = []
    if run.reference:
        reference = [Line("reference model", total * master / ranks, f"P x {master} / ranks", run.reference)]
    return [
        *reference,
        *_critic_lines(model, run),
        Line("weights", total * master / ranks, f"P x {master} / ranks, P = {total / 1e9:.3g}e9", home),
        Line("gradients", trained * master / ranks, f"P_trained x {master} / ranks", home),
        Line("optimizer", 2 * trained * master / ranks, f"2 x P_trained x {master} / ranks (AdamW)", home),
        Line("gathered layers", gathered * size, f"(2 layers, embedding, lm_head, projector) x {size}"),
        Line("activations", kept, f"{how}, T = {run.tokens}"),
        Line("vision activations", patches * vision, "patches x (blocks kept + projector)"),
        Line(
            "highest moment",
            highest,
            "max(output layer: its gradient and a block of logits, inside of one layer)",
        ),
        Line(
            "pixel tensors",
            pixels * PIXEL_BYTES,
            "patches of all prompts and of the micro-batch x dim x 4",
        ),
    ]


def _critic_lines(model: Architecture, run: Training) -> list[Line]:
    """What the critic of PPO keeps while the policy is updated: its gradients lie there until its own next update. It
    computes before or after the policy, over the same micro-batches, without an output layer: no further activations.
    """
    if run.critic_frozen is None:
        return []
    total = model.parameters + model.hidden - (0 if model.tied else model.embedding_parameters)
    trained, master = total - run.critic_frozen, BYTES[run.master_dtype]
    home = "cpu" if run.offload else "gpu"
    return [
        Line(
            "critic: weights",
            total * master / run.ranks,
            f"P_c x {master} / ranks, P_c = {total / 1e9:.3g}e9",
            home,
        ),
        Line(
            "critic: gradients, optimizer",
            3 * trained * master / run.ranks,
            f"3 x P_c_trained x {master} / ranks",
            home,
        ),
    ]


@dataclass(frozen=True)
class Serving:
    """What decides the memory of one rollout server."""

    gpus: int  # tensor parallel
    memory_bytes: float  # of one GPU
    mem_fraction: float
    max_running: int
    request_tokens: int  # longest prompt and answer
    dtype: str = "bfloat16"


def server_lines(model: Architecture, run: Serving) -> list[Line]:
    """The memory of one GPU of a rollout server: SGLang takes `mem_fraction_static` whether it needs it or not."""
    weights = model.parameters * BYTES[run.dtype] / run.gpus
    pool = max(run.mem_fraction * run.memory_bytes - weights, 0.0)
    return [
        Line("weights", weights, f"P x {BYTES[run.dtype]} / tensor parallel"),
        Line("KV cache", pool, "mem_fraction_static x GPU memory - weights"),
        Line("CUDA graphs, vision tower", 0.06 * run.memory_bytes, "6 % of the GPU, an allowance"),
    ]


def kv_capacity(model: Architecture, run: Serving) -> int:
    """Tokens that fit into one server's KV cache (0 when the weights alone do not fit)."""
    pool = server_lines(model, run)[1].num_bytes * run.gpus
    return int(pool // (model.kv_bytes_per_token * BYTES[run.dtype] / 2))


def peak(lines: list[Line], place: str = "gpu") -> float:
    """Sum of the lines at one place, in bytes."""
    return sum(line.num_bytes for line in lines if line.place == place)


@dataclass(frozen=True)
class Speed:
    """What a GPU does, for the estimate of time: rates as measured on it or from its data sheet."""

    flops: float = 989e12  # dense bf16 of an H100 SXM
    bandwidth: float = 3.35e12  # bytes per second of its memory
    train_share: float = 0.35  # of `flops` that training reaches; docs/gpu.md has measured shares
    decode_share: float = 0.6  # of `bandwidth` that decoding reaches


# part of the name that nvidia-smi gives: (dense bf16 FLOP/s, bytes/s of memory), from the data sheets
DEVICES = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "H800": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "L40S": (362e12, 0.86e12),
    "4090": (165e12, 1.0e12),
    "3090": (71e12, 0.94e12),
}
HOST_LINK = 25e9  # bytes per second to the GPU over PCIe 4.0 x16, for offloaded parameters


def forward_flops(model: Architecture, tokens: float, image_tokens: float, sequence: float) -> float:
    """Multiply-adds x 2 of one forward pass over `tokens`, in sequences of `sequence` (causal attention: half)."""
    text = 2 * tokens * (model.layers * model.layer_parameters + model.embedding_parameters)
    attention = 2 * tokens * model.layers * model.heads * model.head_dim * sequence  # 4 x T x S x d / 2
    patches = image_tokens * model.merge**2
    vision = 2 * patches * model.vision_layers * model.vision_layer_parameters
    vision += (
        2
        * image_tokens
        * (model.vision_width * model.merge**2)
        * (model.vision_width * model.merge**2 + model.hidden)
    )
    return text + attention + vision


@dataclass(frozen=True)
class Step:
    """What a step consists of; lengths in tokens, means."""

    prompts: int
    group: int  # rollouts of each
    prompt_tokens: float
    image_tokens: float  # among them
    answer_tokens: float
    share_prompts: bool = True
    tokens_per_mb: int | None = None  # groups of more are cut into parts that repeat the prompt; None: never
    checkpointing: bool = True
    separate_proximal: bool = False
    critic_epochs: int = 0  # passes of the critic of PPO over a batch; 0: there is none

    @property
    def passes(self) -> int:
        """Forward passes that a token costs: forward and backward (3), recomputation, a proximal pass; with a critic
        its values and its own updates.
        """
        update = 3 + int(self.checkpointing)
        critic = 1 + update * self.critic_epochs if self.critic_epochs else 0
        return update + int(self.separate_proximal) + critic

    @property
    def rollouts(self) -> int:
        return self.prompts * self.group

    @property
    def computed_prompts(self) -> int:
        """Prompts that the trainer computes, each with its images."""
        if not self.share_prompts:
            return self.rollouts
        answers = self.group * self.answer_tokens
        room = max((self.tokens_per_mb or float("inf")) - self.prompt_tokens, 1)
        return self.prompts * max(math.ceil(answers / room), 1)

    @property
    def computed_tokens(self) -> float:
        return self.rollouts * self.answer_tokens + self.computed_prompts * self.prompt_tokens


def step_flops(model: Architecture, step: Step) -> float:
    """Work of one iteration on the trainer."""
    sequence, images = step.prompt_tokens + step.answer_tokens, step.computed_prompts * step.image_tokens
    return step.passes * forward_flops(model, step.computed_tokens, images, sequence)


def step_seconds(
    model: Architecture,
    step: Step,
    *,
    train_ranks: int,
    servers: int,
    running: int,
    speed: Speed,
    offloaded_bytes: float = 0.0,
) -> dict[str, float]:
    """Seconds per iteration of the trainer and of the servers; asynchronous training takes about the larger one.

    Trainer: FLOPs over the share of the rate. Servers: a decoding step reads the weights and the keys and values of
    all running requests once from memory; prefill is counted by its FLOPs, once for the requests of a prompt, which one
    server gets. Offloaded parameters travel to the GPU for every pass of a micro-batch: forward, backward, proximal.
    """
    train = step_flops(model, step) / (train_ranks * speed.flops * speed.train_share)
    journeys = 2 + int(step.separate_proximal)
    tokens_per_mb = step.tokens_per_mb or 1
    train += (
        journeys * offloaded_bytes / HOST_LINK * -(-step.computed_tokens // (train_ranks * tokens_per_mb))
    )
    running = min(running, -(-step.rollouts // servers))
    context = step.prompt_tokens + step.answer_tokens / 2
    read = model.parameters * 2 + running * model.kv_bytes_per_token * context
    steps = step.answer_tokens * step.rollouts / (servers * running)
    decode = steps * read / (speed.bandwidth * speed.decode_share)
    prompts, images = step.prompts * step.prompt_tokens, step.prompts * step.image_tokens
    prefill = forward_flops(model, prompts, images, step.prompt_tokens)
    prefill /= servers * speed.flops * speed.train_share
    return {"trainer": train, "decode": decode, "prefill": prefill, "servers": decode + prefill}
