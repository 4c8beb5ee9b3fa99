"""Look at a configuration and at this machine before a run: everything that would fail later, and what it will cost.

    python -m utils.doctor --config configs/llavaov15-8b_stage1_grpo.yaml [key=value ...]
        [--gpu-memory GIB]      plan for GPUs of this size instead of those found here
        [--answer-tokens N]     mean answer that the time estimate assumes
        [--lengths PATH]        measured lengths of prompts and answers: the folder of a run or of a rehearsal

Prints problems (exit status 1), what is missing (3, where that is all), remarks, the memory of every role with its
formula, the time of a step, and how many of the GPUs should serve and how many train. A checkpoint that is not there
yet is planned by the model that its path names. Nothing is started or written. What is checked: docs/gpu.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.command_line import Parser
from utils.doctor import checks as doctor_checks
from utils.doctor import lengths as length_files
from utils.doctor import machine, memory_model, split
from utils.doctor.plan import Plan, make_plan

GIB = memory_model.GIB


@dataclass
class Diagnosis:
    """`problems` and what is `missing` (checkpoint, data) stop a run, `remarks` do not; `plan` may be None."""

    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    plan: Plan | None = None

    @property
    def status(self) -> int:
        """Exit status: 1 for a problem, 3 where only files are missing, else 0."""
        return 1 if self.problems else 3 if self.missing else 0


def examine(
    argv: list[str],
    here: machine.Machine | None = None,
    *,
    gpu_memory_bytes: float | None = None,
    answer_tokens: int | None = None,
    lengths: Path | None = None,
    is_login_node: bool = False,
) -> Diagnosis:
    """All findings about `["--config", FILE, "key=value", ...]` on the machine `here` (default: this one).

    Checks that need an earlier one to pass are left out when it fails: one mistake gives one message. On a login node
    those of the machine are left out: its GPUs, memory, ports and installed versions are not those of a job's nodes.
    """
    diagnosis = Diagnosis()
    from trains.arguments import read
    from trains.config import Config
    from trains.file_gate import Missing
    from trains.gate import problems, remarks

    try:
        config, _ = read(argv, Config)
    except ValueError as error:
        diagnosis.problems += str(error).splitlines()
        return diagnosis
    found = problems(config)
    diagnosis.missing += [text for text in found if isinstance(text, Missing)]
    diagnosis.problems += [text for text in found if not isinstance(text, Missing)]
    diagnosis.remarks += remarks(config)
    if diagnosis.problems:
        return diagnosis
    here = here or machine.look(config.cluster.fileroot)
    if is_login_node:
        here = replace(here, gpus=())
    plan = _plan(
        config, here, diagnosis, lengths, gpu_memory_bytes=gpu_memory_bytes, answer_tokens=answer_tokens
    )
    if plan is None:
        return diagnosis
    diagnosis.plan = plan
    for check in doctor_checks.CHECKS:
        if is_login_node and check in doctor_checks.NODE_CHECKS:
            continue
        for is_problem, text in check(plan):
            (diagnosis.problems if is_problem else diagnosis.remarks).append(text)
    return diagnosis


def _plan(
    config: Any,
    here: machine.Machine,
    diagnosis: Diagnosis,
    lengths: Path | None,
    **options: Any,
) -> Plan | None:
    """The plan; None with the reason in `diagnosis`."""
    try:
        longest = config.gconfig.max_new_tokens
        measured = None if lengths is None else length_files.read(lengths, longest=longest)
    except ValueError as error:
        diagnosis.problems.append(str(error))
        return None
    try:
        return make_plan(config, here, lengths=measured, **options)
    except KeyError as error:
        diagnosis.problems.append(f"actor.path={config.actor.path!r}: config.json does not give {error}")
    except LookupError as error:
        diagnosis.remarks.append(str(error))
    except ValueError as error:
        diagnosis.problems.append(f"actor.path={config.actor.path!r}: config.json: {error}")
    return None


def report(diagnosis: Diagnosis, *, with_splits: bool = False) -> str:
    """The findings and the tables, as text; those of the splits take seconds to compute."""
    parts = []
    if diagnosis.plan is not None:
        if diagnosis.plan.assumed_model:
            parts.append(f"planned with the sizes of {diagnosis.plan.assumed_model}, which the path names")
        parts.append(memory_table(diagnosis.plan))
        if not diagnosis.plan.is_cpu:
            parts.append(time_table(diagnosis.plan))
            parts += split_tables(diagnosis.plan) if with_splits else []
    parts += [f"remark: {text}" for text in diagnosis.remarks]
    parts += [f"MISSING: {text}" for text in diagnosis.missing]
    parts += [f"PROBLEM: {text}" for text in diagnosis.problems]
    if diagnosis.status == 0:
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


def split_tables(plan: Plan) -> list[str]:
    """How to divide the GPUs of one node, for measured lengths, else for two assumed kinds of answer; none where there
    is nothing to divide.
    """
    if plan.config.cluster.n_nodes > 1 or plan.is_shared or plan.server_gpus + plan.train_gpus < 3:
        return []
    if plan.lengths is not None:
        return [split.table(plan, plan.lengths)]
    options = {"prompt": split.ASSUMED_PROMPT, "longest": plan.config.gconfig.max_new_tokens}
    kinds = (("answers without thinking", length_files.SHORT), ("thinking", length_files.THINKING))
    return [
        split.table(plan, length_files.assumed(f"{what} (assumed; --lengths RUN measures)", shape, **options))
        for what, shape in kinds
    ]


def describe(argv: list[str]) -> tuple[str, int]:
    """What `--dry-run` of the launchers prints beside the processes, and the exit status: 2, as for every refusal of
    theirs, 3 or 0.
    """
    diagnosis = examine(argv)
    return report(diagnosis), 2 if diagnosis.problems else diagnosis.status


def problems_here(argv: list[str], launcher: str) -> list[str]:
    """What stops a run with these arguments; every launcher asks before it starts anything, Ray's and Slurm's from a
    login node.
    """
    diagnosis = examine(argv, is_login_node=launcher != "local")
    return diagnosis.problems + diagnosis.missing


def _gibibytes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: wanted GiB of one GPU, a number above 0")
    return number


def _tokens(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted 1 token or more")
    return number


def main(argv: list[str] | None = None) -> int:
    from trains.host.settings import import_alone

    parser = Parser(
        prog="python -m utils.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--gpu-memory", type=_gibibytes, metavar="GIB")
    parser.add_argument("--answer-tokens", type=_tokens, metavar="N")
    parser.add_argument("--lengths", type=Path, metavar="PATH")
    known, overrides = parser.parse_known_args(argv)
    for word in overrides:
        if word.startswith("-"):
            parser.error(f"unknown option {word}")
        if "=" not in word and not word.startswith("~"):
            parser.error(f"{word!r} is no override; wanted key=value")
    if not Path(known.config).is_file():
        parser.error(f"--config {known.config} does not exist (working directory: {Path.cwd()})")
    arguments = ["--config", known.config, *overrides]
    options: dict[str, Any] = {"answer_tokens": known.answer_tokens, "lengths": known.lengths}
    if known.gpu_memory is not None:
        options["gpu_memory_bytes"] = known.gpu_memory * GIB
    import_alone()
    diagnosis = examine(arguments, **options)
    print(report(diagnosis, with_splits=True))
    return diagnosis.status
