"""Look at a configuration and at this machine before a run: everything that would fail later, and what it will cost.

    python -m utils.doctor --config configs/llavaov15-8b_stage1_grpo.yaml [key=value ...]
        [--gpu-memory GIB]      plan for GPUs of this size instead of those found here
        [--answer-tokens N]     mean answer that the time estimate assumes

Prints problems (exit status 1), remarks, the memory of every role with its formula, and the time of a step. Nothing is
started or written. What is checked: docs/gpu.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from utils.doctor import checks as doctor_checks
from utils.doctor import config as doctor_config
from utils.doctor import machine, memory_model
from utils.doctor.plan import Plan, make_plan

GIB = memory_model.GIB


@dataclass
class Diagnosis:
    """`problems` stop a run, `remarks` do not; `plan` is None when the configuration could not even be read."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    plan: Plan | None = None


def examine(
    argv: list[str],
    here: machine.Machine,
    *,
    gpu_memory_bytes: float | None = None,
    answer_tokens: int | None = None,
) -> Diagnosis:
    """All findings about `["--config", FILE, "key=value", ...]` on the machine `here`.

    Checks that need an earlier one to pass are left out when it fails: one mistake gives one message.
    """
    diagnosis = Diagnosis()
    config, problem = doctor_config.read_configuration(argv)
    if problem is not None:
        diagnosis.problems.append(problem)
        return diagnosis
    from trains.gate import problems, remarks

    diagnosis.problems += problems(config)
    diagnosis.remarks += remarks(config)
    if diagnosis.problems:
        return diagnosis
    try:
        plan = make_plan(config, here, gpu_memory_bytes=gpu_memory_bytes, answer_tokens=answer_tokens)
    except (KeyError, ValueError) as error:
        diagnosis.problems.append(f"actor.path={config.actor.path!r}: config.json: {error}")
        return diagnosis
    diagnosis.plan = plan
    for check in doctor_checks.CHECKS:
        for is_problem, text in check(plan):
            (diagnosis.problems if is_problem else diagnosis.remarks).append(text)
    return diagnosis


def report(diagnosis: Diagnosis) -> str:
    """The findings and the tables, as text."""
    parts = []
    if diagnosis.plan is not None:
        parts.append(memory_table(diagnosis.plan))
        if not diagnosis.plan.is_cpu:
            parts.append(time_table(diagnosis.plan))
    parts += [f"remark: {text}" for text in diagnosis.remarks]
    parts += [f"PROBLEM: {text}" for text in diagnosis.problems]
    if not diagnosis.problems:
        parts.append("no problem found")
    return "\n".join(parts)


def memory_table(plan: Plan) -> str:
    """Memory per GPU (on a CPU: per process) of every role, line by line, and what does not live on the GPU."""
    out = []
    for role, lines in plan.roles.items():
        if plan.is_cpu and role == "server":
            continue  # its cache follows the machine's memory, not a GPU's (sglang_cpu's flags)
        out.append(f"{role}, GiB per {'process' if plan.is_cpu else 'GPU'}")
        for line in lines:
            place = "" if line.place == "gpu" else "  [in host memory]"
            out.append(f"  {line.what:<26}{line.num_bytes / GIB:>9.2f}   {line.formula}{place}")
        limit = plan.here.host_memory_bytes if plan.is_cpu else plan.gpu_memory_bytes
        out.append(f"  {'sum':<26}{memory_model.peak(lines) / GIB:>9.2f}   of {limit / GIB:.0f}")
    if plan.is_cpu:
        return "\n".join(out)
    if plan.is_shared:
        out.append(
            f"server and trainer share each GPU: {plan.shared_bytes / GIB:.2f} of {plan.gpu_memory_bytes / GIB:.0f} GiB"
        )
    out.append(
        f"KV cache of a server: {plan.kv_capacity:,} tokens, {plan.kv_capacity / plan.longest:.1f} requests of the "
        f"longest kind ({plan.longest:,} tokens)"
    )
    return "\n".join(out)


def time_table(plan: Plan) -> str:
    """Seconds of a step, with the assumptions it rests on."""
    seconds = plan.seconds
    slower = max(("trainer", "servers"), key=seconds.__getitem__)
    return (
        f"a step of {plan.num_rollouts} rollouts, if prompts have {plan.prompt_tokens} and answers "
        f"{plan.answer_tokens} tokens, on {plan.speed_name}: about {seconds[slower]:.0f} s; trainer "
        f"{seconds['trainer']:.0f} s, servers {seconds['servers']:.0f} s (decode {seconds['decode']:.0f}, prefill "
        f"{seconds['prefill']:.0f})"
    )


def describe(argv: list[str]) -> str:
    """What `--dry-run` of the launchers prints beside the processes."""
    return report(examine(argv, machine.look(_fileroot(argv))))


def problems_here(argv: list[str]) -> list[str]:
    """What stops a run with these arguments on this machine; the local launcher asks before it starts anything."""
    return examine(argv, machine.look(_fileroot(argv))).problems


def _fileroot(argv: list[str]) -> str:
    config, _ = doctor_config.read_configuration(argv)
    return "." if config is None else config.cluster.fileroot


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m utils.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--gpu-memory", type=float, metavar="GIB")
    parser.add_argument("--answer-tokens", type=int, metavar="N")
    known, overrides = parser.parse_known_args(argv)
    arguments = ["--config", known.config, *overrides]
    options: dict[str, Any] = {"answer_tokens": known.answer_tokens}
    if known.gpu_memory is not None:
        options["gpu_memory_bytes"] = known.gpu_memory * GIB
    diagnosis = examine(arguments, machine.look(_fileroot(arguments)), **options)
    print(report(diagnosis))
    return 1 if diagnosis.problems else 0
