"""http: a model behind an OpenAI-compatible endpoint judges the answer (docs/rewards.md).

Parameters and their meaning are in `reward.reading.judge_text`; the pool asks without a worker.
"""

from collections.abc import Mapping
from typing import Any

from reward.reading.judge_text import DEFAULTS, check
from reward.types import Verdict, Verifier
from reward.workers.judge import the_judge


def prepare(reference: str, params: Mapping[str, Any]) -> str:
    """The reference as it is. ValueError: a parameter cannot be used."""
    check(params)
    return reference


def verify(extracted: str, reference: str, params: Mapping[str, Any]) -> Verdict:
    """The judge's verdict; waits for it."""
    return the_judge().submit(params, [reference], extracted, params.get("completion", extracted)).result()


VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, remote=True)
