"""References of costly verifiers (mathematics, markup, text, one's own), read in killable processes before a run."""

import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from dataset.schema import reference_problem
from reward.pool import RewardPool, read_reply
from reward.registry import VERIFIERS
from reward.spec import resolve
from utils.sample import parse_spec

logger = logging.getLogger(__name__)
MAX_WORKERS = 8
MAX_WAITING = 512  # references in the pool's queue at once
TOTAL_SECONDS = 600.0  # then the rest is left to the run, which leaves out what it cannot score
OPTIONS = dict.fromkeys(("problem_type", "prompt_type", "spec", "progress", "num_tokens"))

Reference = tuple[str, str, str | None]  # answers as JSON, answer type, spec as JSON


def costly_reference(row: Mapping[str, Any]) -> Reference | None:
    """What `unreadable` is to read of a sound row; None where `row_problems` has read it, or only a judge could."""
    spec = parse_spec(row.get("spec"), row["id"])
    rule = resolve(row["answer_type"], spec)
    verifier = VERIFIERS[rule.verifier]
    if not verifier.isolated or verifier.remote or rule.verifier == "general-code":
        return None
    text = None if spec is None else json.dumps(spec, sort_keys=True)
    return json.dumps(list(row["answer"])), row["answer_type"], text


def unreadable(references: Iterable[Reference]) -> dict[Reference, str]:
    """Of the references that cannot be read: what is wrong. One that exceeds its verifier's deadline or kills its
    process cannot. After TOTAL_SECONDS the rest is not read, which is logged. Raises ``Unavailable`` where this machine
    lacks what a verifier needs.
    """
    distinct = deque(dict.fromkeys(references))
    if not distinct:
        return {}
    faults, waiting, deadline = {}, deque(), time.monotonic() + TOTAL_SECONDS
    with RewardPool(min(MAX_WORKERS, len(os.sched_getaffinity(0)))) as pool:
        while distinct or waiting:
            while distinct and len(waiting) < MAX_WAITING:
                waiting.append(_submitted(pool, distinct.popleft()))
            reference, options, future = waiting.popleft()
            try:
                fault = _fault(future, reference[1], options, deadline - time.monotonic())
            except TimeoutError:
                left = 1 + len(waiting) + len(distinct)
                logger.warning("%d references were not read within %.0f s", left, TOTAL_SECONDS)
                break
            if fault is not None:
                faults[reference] = fault
    return faults


def _submitted(pool: RewardPool, reference: Reference) -> tuple[Reference, dict[str, Any], Future]:
    answers, answer_type, spec = reference
    options = OPTIONS | {"spec": None if spec is None else json.loads(spec)}
    return reference, options, pool.submit("", json.loads(answers), answer_type, options)


def _fault(future: Future, answer_type: str, options: Mapping[str, Any], seconds: float) -> str | None:
    """What is wrong with a reference that a worker has read before it judges an empty answer; None if nothing is."""
    reply = future.result(max(seconds, 0.0))
    if "lost" in reply:
        return f"column 'answer': the verifier cannot read the reference ({reply['lost']})"
    if "error" in reply:
        try:
            read_reply(reply, "", answer_type, options)
        except ValueError as error:
            return reference_problem(error)
    return None
