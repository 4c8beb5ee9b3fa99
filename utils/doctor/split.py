"""How many of the GPUs should serve and how many train: the pipeline model over every split that can be run.

What a server and a trainer take is estimated from the model's sizes and the GPU's data sheet, as the doctor's time
table does, with what this trainer computes: a prompt once for its group, and no proximal pass of its own where there is
one minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

from utils.doctor import memory_model
from utils.doctor.lengths import Lengths
from utils.doctor.pipeline_model import simulate
from utils.doctor.pipeline_parameters import Parameters
from utils.doctor.plan import PIXELS_PER_TOKEN, Plan, step_of

NUM_STEPS, WARMUP_STEPS = 12, 4
ASSUMED_PROMPT = 400.0  # tokens, 334 of them an image of the release's largest size
GOOD_ENOUGH = 0.05  # below the best: not worth a change
EXCHANGE_BANDWIDTH = 5.7e9  # bytes of weights handed over per second: 3 s for 8B, an assumption
REWARD_SECONDS, FIXED_SECONDS, REQUEST_SECONDS, SPEED_SPREAD = 0.5, 1.0, 0.0005, 0.05  # assumptions likewise


@dataclass(frozen=True)
class Split:
    """Servers and trainers, GPUs of each, prompts a step, and what the model says of them."""

    servers: int
    trainers: int
    batch: int  # prompts a step: the configured number, or the multiple of the trainers that is nearest to it
    tokens_per_second: float  # of answers, trained on
    step_seconds: float
    waiting: float  # share of the time that the trainer waits
    trainer_bytes: float

    @property
    def name(self) -> str:
        return f"{self.servers} + {self.trainers}"


def parameters(plan: Plan, lengths: Lengths, servers: int, trainers: int, batch: int) -> Parameters:
    """The pipeline of a doctor's `Plan` with another number of servers and trainer ranks."""
    config, model, speed = plan.config, plan.model, plan.speed
    group, answer = config.gconfig.n_samples, lengths.mean
    largest = config.train_dataset.max_pixels or float("inf")
    image = min(lengths.prompt, largest / PIXELS_PER_TOKEN)
    step = step_of(config, lengths.prompt, answer, image)
    rate = speed.flops * speed.train_share
    text = memory_model.forward_flops(model, 1, 0, lengths.prompt + answer)
    vision = memory_model.forward_flops(model, 0, image, 0)
    weights = model.parameters * 2
    per_gpu = config.allocation.gen.tp_size
    read_rate = speed.bandwidth * speed.decode_share * per_gpu
    context = model.kv_bytes_per_token * (lengths.prompt + answer / 2)
    running = config.sglang.max_running_requests or 256
    fits = max(int(plan.kv_capacity // max(lengths.prompt + answer, 1)), 1)  # in the cache at one time
    return Parameters(
        num_servers=servers,
        num_trainers=trainers,
        groups_per_step=batch,
        group_size=group,
        eta=config.rollout.max_head_offpolicyness,
        decode_seconds=tuple((n, (weights + n * context) / read_rate) for n in (1, max(running, 2))),
        train_seconds_per_token=step.passes * text / rate,
        train_seconds_per_prompt=step.passes * vision / rate,
        median_tokens=float(lengths.median),
        sigma_tokens=0.0,
        max_tokens=config.gconfig.max_new_tokens,
        prompt_tokens=round(lengths.prompt),
        share_prompts=step.share_prompts,
        tokens_per_mb=step.tokens_per_mb or 0,
        measured_tokens=lengths.answers,
        max_running_requests=min(running, fits),
        max_concurrent_groups=config.rollout.max_concurrent_rollouts or 10**9,
        prefill_seconds=(lengths.prompt * text + vision) / (rate * per_gpu) + REQUEST_SECONDS,
        # one pass over the weights for the last tokens of all of them, and each request's own handling
        shared_prefill_seconds=weights / read_rate / max(group - 1, 1) + REQUEST_SECONDS,
        has_affinity=True,
        reward_seconds=REWARD_SECONDS,
        train_fixed_seconds=FIXED_SECONDS,
        sync_seconds=weights / EXCHANGE_BANDWIDTH,
        latency_sigma=SPEED_SPREAD,
        num_steps=NUM_STEPS,
        warmup_steps=WARMUP_STEPS,
    )


def splits(plan: Plan, lengths: Lengths) -> list[Split]:
    """Every split of the configured GPUs whose trainer ranks have room for their share, fastest first."""
    total, size = plan.server_gpus + plan.train_gpus, plan.config.allocation.gen.tp_size
    found = []
    for server_gpus in range(size, total, size):
        trainers = total - server_gpus
        batch = nearest_multiple(plan.config.train_dataset.batch_size, trainers)
        used = memory_model.peak(plan.trainer_lines(trainers, batch))
        if used > plan.gpu_memory_bytes:
            continue
        result = simulate(parameters(plan, lengths, server_gpus // size, trainers, batch))
        waiting, seconds = result.trainer_wait_share, result.step_seconds
        found.append(Split(server_gpus, trainers, batch, result.tokens_per_second, seconds, waiting, used))
    return sorted(found, key=lambda split: -split.tokens_per_second)


def recommended(found: list[Split], configured: tuple[int, int]) -> Split:
    """The configured split where it is within `GOOD_ENOUGH` of the best, else the best.

    Raises ValueError for no splits.
    """
    if not found:
        raise ValueError("no split of these GPUs has room for the trainer")
    least = (1 - GOOD_ENOUGH) * found[0].tokens_per_second
    ours = [split for split in found if (split.servers, split.trainers) == configured]
    return ours[0] if ours and ours[0].tokens_per_second >= least else found[0]


def nearest_multiple(number: int, of: int) -> int:
    """The multiple of `of`, above 0, that is nearest to `number`; the larger of two.

    >>> [nearest_multiple(32, n) for n in (4, 5, 6, 7)]
    [32, 30, 30, 35]
    """
    return max(int(number / of + 0.5), 1) * of


def table(plan: Plan, lengths: Lengths) -> str:
    """What the pipeline model says of the configured GPUs, for the doctor's page."""
    found = splits(plan, lengths)
    configured = (plan.server_gpus, plan.train_gpus)
    if not found:
        return "servers + trainers: no split of these GPUs has room for the trainer"
    best = recommended(found, configured)
    lines = [
        f"servers + trainers, for {lengths.what}: prompts of {lengths.prompt:.0f} tokens, answers of "
        f"{lengths.mean:.0f} (median {lengths.median}); an estimate on {plan.speed_name}"
    ]
    for split in sorted(found, key=lambda split: split.servers):
        note = "  <- recommended" if split is best else ""
        note += "  (configured)" if (split.servers, split.trainers) == configured else ""
        lines.append(
            f"  {split.name}: {split.tokens_per_second:>7,.0f} tokens/s, a step of {split.batch} prompts "
            f"{split.step_seconds:.1f} s, the trainer waits {split.waiting:.0%}{note}"
        )
    if (best.servers, best.trainers) != configured:
        lines.append(f"  to take it: {' '.join(overrides(plan, best))}")
    return "\n".join(lines)


def overrides(plan: Plan, split: Split) -> list[str]:
    """The words behind the command that make the configured run one with this split."""
    size, data = plan.config.allocation.gen.tp_size, plan.config.train_dataset
    tensor = f"t{size}" if size > 1 else ""
    words = [f"allocation_mode=sglang:d{split.servers // size}{tensor}+fsdp:d{split.trainers}"]
    if split.batch != data.batch_size:
        words.append(f"train_dataset.batch_size={split.batch}")
    return words
