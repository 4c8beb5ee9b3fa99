"""Runs of paper for the viewer's tests: records and shards as a trainer writes them, of any length, healthy or not."""

import base64
import io
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trains.rollout_records import ImageStore
from utils.rollout_files import SCHEMA

HOSTILE = (
    "</script><script>document.title='pwned'</script>",
    '"><img src=http://example.invalid/x.png onerror=alert(1)>',
    "{{ 7 * 7 }} {% include '/etc/passwd' %}",
    "<svg onload=alert(1)><use href='http://example.invalid/y.svg#a'/></svg>",
    "$$\\alpha$$ \\(x\\) javascript:alert(1) ]]>--> \x00\x1b[31m \u202e \ud83d",
    "a" * 4000,
)
SVG = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 10 10'><circle cx='5' cy='5' r='{r}' fill='teal'/></svg>"
KINDS = ("number", "bbox", "svg-code", "html-code")


def healthy_record(step, total=60, *, rng=None, names=("digits-number", "digits-bbox")):
    """A step's record of a run that learns."""
    rng = rng or random.Random(step)
    share = step / total
    reward = 0.4 + 0.4 * share + rng.gauss(0, 0.02)
    part = {"reward": reward, "solved": reward, "parts": {"accuracy": reward}}
    return {
        "step": step, "version": step - 1, "sample_ids": [f"row/{(step * 3 + i) % 40}" for i in range(4)],
        "reward": reward, "solved": reward, "truncated": 0.01, "length_mean": 12.0, "length_max": 20,
        "parts": {"accuracy": reward, "format": 0.9}, "statuses": {"ok": 0.97, "no_answer": 0.03},
        "by_source": dict.fromkeys(names, part), "by_answer_type": {"number": part},
        "groups_without_signal": 0.3 + 0.2 * share, "gap_mean": 1.0, "gap_max": 2, "gap_histogram": {"1": 100},
        "num_rollouts": 16, "num_tokens": 200, "parity_max": 3e-6, "parity_mean": 3e-7, "parity_tokens": 40,
        "hacking": {"several_answers": 0.01, "constant_answer/number": 0.2}, "loss": 0.01,
        "entropy": 0.3 - 0.15 * share,
        "behavior_kl": 0.003, "behavior_weight_mean": 1.0, "behavior_weight_max": 2.0, "behavior_capped": 0.0,
        "effective_sample_size": 0.98, "clipped_low": 0.0, "clipped_high": 0.0, "grad_norm": 0.5, "lr": 2.5e-5,
        "num_skipped": 0, "buffer": {"submitted": 16 * step, "consumed": 16 * step, "evicted": 0},
        "seconds": {"rollout": 0.4, "update": 1.0, "total": 1.6}, "waiting_share": 0.1, "exchange_pause_share": 0.02,
        "tokens_per_second": 300.0, "trainer_tokens_per_second": 900.0,
    }  # fmt: skip


def make_run(folder, num_steps=6, *, seed=0, hostile=False, with_rollouts=True, finished=True, group_size=4):
    """A run's folder. `with_rollouts` may be a set of steps. Returns the rows of all shards."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    names = HOSTILE if hostile else ("digits-number", "digits-bbox")
    manifest = {
        "command": f"python -m areal.launcher.local {HOSTILE[0] if hostile else 'trains/grpo.py'}",
        "experiment_name": HOSTILE[0] if hostile else "digits", "trial_name": f"seed{seed}",
        "logs": str(folder / "logs"),
        "total_steps": num_steps, "finished": finished, "checkpoint": None,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "config.yaml").write_text(f"seed: {seed}\nactor: {{path: a}}\n")
    records = [healthy_record(step, num_steps, names=names) for step in range(1, num_steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    evaluations = [
        {"step": step, "overall": {"accuracy": 0.5 + 0.3 * step / num_steps, "num_samples": 400},
         "source": {names[0]: {"accuracy": 0.5}}, "answer_type": {"number": {"accuracy": 0.5}}}
        for step in (0, num_steps)
    ]  # fmt: skip
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in evaluations))
    store, rows = ImageStore(folder / "rollouts"), []
    images = [store.put([png(shade)]) for shade in (60, 160)]
    for record in records:
        if with_rollouts is True or (with_rollouts and record["step"] in with_rollouts):
            step_rows = list(_rows(record, images, rng, group_size, hostile))
            path = folder / "rollouts" / f"step-{record['step']:06d}-rank0.parquet"
            pq.write_table(pa.Table.from_pylist(step_rows, schema=SCHEMA), path, compression="zstd")
            rows += step_rows
    return rows


def png(shade):
    """An image as base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (112, 84), (shade, 120, 90)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _rows(record, images, rng, group_size, hostile):
    for place, sample in enumerate(record["sample_ids"]):
        kind = KINDS[place % len(KINDS)]
        answers = {
            "number": "7",
            "bbox": "[10, 10, 60, 50]",
            "svg-code": SVG.format(r=3),
            "html-code": "<h1>Seven</h1>",
        }
        for i in range(group_size):
            reward = float(rng.random() < 0.6)
            given = {
                "number": str(rng.randrange(10)), "bbox": f"[{10 + rng.randrange(9)}, 12, 70, 55]",
                "svg-code": SVG.format(r=rng.randrange(1, 5)), "html-code": "<h1>Sev</h1><p>en</p>",
            }[kind]  # fmt: skip
            if hostile:
                given = HOSTILE[(i + place) % len(HOSTILE)].encode("utf-8", "replace").decode()
            num_tokens = 5
            yield {
                "step": record["step"], "version": record["version"], "rank": 0, "group": place, "rollout": i,
                "sample_id": (HOSTILE[1] if hostile else "") + sample,
                "source": HOSTILE[0] if hostile else f"digits-{kind}",
                "answer_type": kind, "prompt_type": "think", "answer": [answers[kind]], "spec": None,
                "prompt": "<|im_start|>user\n<|image_pad|> x 16 Which?" + (HOSTILE[2] if hostile else ""),
                "images": images[place % 2], "image_sizes": [[112, 84]],
                "reply_images": images[1 - place % 2] if kind == "number" and i == 0 else [],
                "completion": f"<think>I look. {given}</think><answer>{given}</answer>", "is_reference": False,
                "reward": reward, "parts": [{"name": "accuracy", "value": reward}, {"name": "format", "value": 1.0}],
                "status": "ok", "extracted": given, "trace": [f"compared {given[:60]}"], "truncated": False,
                "num_prompt_tokens": 30, "num_tokens": num_tokens, "advantage": reward - 0.5,
                "versions": [{"version": max(record["version"] - 1, 0), "num_tokens": 2},
                             {"version": record["version"], "num_tokens": num_tokens - 2}],
                "token_ids": list(range(num_tokens)),
                "tokens": [f"{HOSTILE[0] if hostile else 'word'}{n} " for n in range(num_tokens)],
                "behavior_logprobs": [math.log(0.5) - 0.1 * n for n in range(num_tokens)],
                "proximal_logprobs": [math.log(0.5) + 0.05 * n for n in range(num_tokens)],
                "entropy": [0.1 * n for n in range(num_tokens)],
            }  # fmt: skip
