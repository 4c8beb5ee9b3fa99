"""Reproducible sampling: a seed per sample and attempt, and a logit processor with which any SGLang server honours it.

SGLang's own `sampling_seed` counts only under `--enable-deterministic-inference`, which its CPU attention refuses. A
custom logit processor can do the same on every backend: by the Gumbel-max trick, argmax(logits / T + g) with
g ~ Gumbel(0, 1) samples from softmax(logits / T), and g is a function of seed and position alone. It leaves one token
with probability one, so the server's own sampler has nothing left to choose.
"""

import hashlib
import json
from functools import lru_cache

SAMPLING_MODES = ("auto", "seeded", "grouped")


def attempt_seed(seed: int, sample_id: str, attempt: int) -> int:
    """The seed of one attempt, in [0, 2^31): the same in every process and order of work."""
    digest = hashlib.blake2b(f"{seed}:{attempt}:{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


@lru_cache(maxsize=1)
def seeded_processor() -> str:
    """The serialised logit processor for a request's `custom_logit_processor`; the server calls it for each step.

    Its parameters: ``{"seed": int, "temperature": float}``, as `custom_params` of the request.
    """
    import dill

    class SeededSampling:
        def __call__(self, logits, custom_param_list=None):
            import torch

            vocabulary = logits.shape[-1]
            for row, parameters in enumerate(custom_param_list or []):
                position = len(parameters["__req__"].output_ids)
                generator = torch.Generator(device=logits.device).manual_seed(
                    (parameters["seed"] * 1_000_003 + position) & 0x7FFFFFFFFFFFFFFF
                )
                uniform = torch.rand(
                    vocabulary, generator=generator, dtype=torch.float64, device=logits.device
                )
                gumbel = -torch.log(-torch.log(uniform.clamp_(1e-300, 1 - 1e-16)))
                scores = logits[row].double() / parameters["temperature"] + gumbel
                chosen = scores.argmax()
                logits[row] = float("-inf")
                logits[row, chosen] = 0.0
            return logits

    # By value, not by name: the server's process need not be able to import this project.
    SeededSampling.__module__ = "__main__"
    return json.dumps({"callable": dill.dumps(SeededSampling, recurse=True).hex()})
