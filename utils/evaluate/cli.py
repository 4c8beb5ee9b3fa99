"""Benchmarks through lmms-eval: the command, the task files of a prompt mode, the table before and after.

    python -m utils.evaluate --model CHECKPOINT --tasks mmmu_pro_vision mathvision_testmini --mode thinking --output DIR
    python -m utils.evaluate compare BEFORE AFTER          # folders of two such runs

The first form writes, under DIR, what lmms-eval needs and nobody should edit by hand: `model/`, the checkpoint by links
with the system prompt of the mode in its chat template and the evaluation's image limit in its processor;
`tasks/TASK_MODE.yaml`, the task as lmms-eval ships it (`include`) with the length of an answer and a filter that takes
the text out of <answer></answer>; and `command.sh`, which it runs where lmms-eval is installed. `--mode fast` asks for
the answer alone, `--mode thinking` for reasoning first; both texts are those of training (dataset/prompts.py).

`compare` prints every metric of both runs and applies the forgetting gate: DocVQA, CharXiv and VL-RewardBench are known
to fall in thinking mode; the exit status is 1 when one of them loses more than `--gate` points.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import run_manifest
from utils.command_line import Parser, check_model, check_output
from utils.evaluate.offline import trained_prompts

MAX_PIXELS = 3_240_000  # of the recipe's evaluation
MAX_NEW_TOKENS = {"fast": 1024, "thinking": 16384}
GATED_TASKS = ("docvqa", "charxiv", "vl_rewardbench")
GATE_POINTS = 2.0
RESULT_FILES = ("*_results.json", "results.json")


@dataclass(frozen=True)
class Change:
    """One metric of one task in both runs, in points (0 to 100)."""

    task: str
    metric: str
    before: float
    after: float
    is_gated: bool

    @property
    def gain(self) -> float:
        return self.after - self.before


def question_frame(mode: str, prompts: Any) -> Any:
    """What stands around every question in `fast` or `thinking` mode under these prompt settings: a
    `dataset.prompts.Frame`. Raises ValueError for another mode.
    """
    from dataset.prompts import frame

    types = {"fast": "answer", "thinking": "think"}
    if mode not in types:
        raise ValueError(f"mode is {mode!r}; wanted one of {sorted(types)}")
    return frame(types[mode], config=prompts)


def task_override(task: str, mode: str) -> dict[str, Any]:
    """A task file of lmms-eval: the shipped task under a name of ours. Questions and scoring stay the task's own."""
    extract = {"function": "regex", "regex_pattern": r"<answer>\s*([\s\S]*?)\s*</answer>", "group_select": -1}
    return {
        "include": f"{task}.yaml",
        "task": name_of(task, mode),
        "generation_kwargs": {"max_new_tokens": MAX_NEW_TOKENS[mode], "temperature": 0, "do_sample": False},
        "filter_list": [{"name": "answer", "filter": [extract]}],
    }


def framed_template(template: str, around: Any) -> str:
    """A chat template that puts a frame around the last question, unless the conversation brings a system prompt."""
    before, after = (
        json.dumps([{"type": "text", "text": text}] if text else []) for text in (around.before, around.after)
    )  # JSON of texts is Jinja as well
    return (
        "{%- if messages[0]['role'] != 'system' -%}"
        "{%- set framed = namespace(messages=" + json.dumps(around.messages) + ") -%}"
        "{%- for message in messages -%}"
        "{%- if loop.last and message['role'] == 'user' -%}"
        "{%- set content = message['content'] -%}"
        "{%- set content = [{'type': 'text', 'text': content}] if content is string else content | list -%}"
        "{%- set message = {'role': 'user', 'content': " + before + " + content + " + after + "} -%}"
        "{%- endif -%}"
        "{%- set framed.messages = framed.messages + [message] -%}"
        "{%- endfor -%}"
        "{%- set messages = framed.messages -%}"
        "{%- endif -%}" + template
    )


def make_model_folder(model: Path, folder: Path, around: Any) -> Path:
    """`folder` with the checkpoint's files by links, the frame of questions and `MAX_PIXELS`. Replaces an older one.

    Raises FileNotFoundError for a folder without a processor or a chat template.
    """
    template = _chat_template(model)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in ("chat_template.json", "chat_template.jinja"):
            (folder / path.name).symlink_to(path.resolve())
    (folder / "chat_template.jinja").write_text(framed_template(template, around))
    name = "preprocessor_config.json"
    limits = json.loads((model / name).read_text())
    limits["max_pixels"] = MAX_PIXELS
    if "size" in limits:
        limits["size"]["longest_edge"] = MAX_PIXELS
    (folder / name).unlink()
    (folder / name).write_text(json.dumps(limits, indent=2) + "\n")
    return folder


def _chat_template(model: Path) -> str:
    if (model / "chat_template.jinja").is_file():
        return (model / "chat_template.jinja").read_text()
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (model / name).is_file() and (
            found := json.loads((model / name).read_text()).get("chat_template")
        ):
            return str(found)
    raise FileNotFoundError(f"{model} has no chat template")


def name_of(task: str, mode: str) -> str:
    return f"{task}_{mode}"


def command(tasks: list[str], mode: str, *, gpus: int, batch_size: int) -> list[str]:
    """The arguments of Python that run lmms-eval in a prepared folder. SGLang serves, as in training."""
    arguments = {"model": "model", "tensor_parallel_size": gpus, "max_pixels": MAX_PIXELS}
    return [
        "-m",
        "lmms_eval",
        "--model",
        "sglang",
        "--model_args",
        ",".join(f"{key}={value}" for key, value in arguments.items()),
        "--include_path",
        "tasks",
        "--tasks",
        ",".join(name_of(task, mode) for task in tasks),
        "--batch_size",
        str(batch_size),
        "--log_samples",
        "--output_path",
        "results",
    ]


def task_folder(task: str) -> Path | None:
    """Where the installed lmms-eval keeps a task's file; None without lmms-eval. Raises ValueError: unknown task."""
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0]) / "tasks"
    found = sorted(root.rglob(f"{task}.yaml"))
    if not found:
        near = sorted(path.stem for path in root.rglob("*.yaml") if task.split("_", 1)[0] in path.stem)[:8]
        raise ValueError(
            f"lmms-eval has no task {task!r} of its own file (a group? name its tasks); near it: {near}"
        )
    return found[0].parent


def write_run(
    model: str,
    tasks: list[str],
    mode: str,
    output: Path,
    *,
    prompts: Any,
    gpus: int = 1,
    batch_size: int = 64,
) -> list[str]:
    """Write model folder, task files and `command.sh` under `output`; returns what `command` gives.

    The script names everything from its own folder, which may be moved, and runs `$PYTHON` (default: python).
    """
    import yaml

    folder = output / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        override = task_override(task, mode)
        shipped = task_folder(task)
        if shipped is not None:
            override["include"] = str(shipped / override["include"])
        text = f"# {task} in {mode} mode; made by utils.evaluate\n" + yaml.safe_dump(
            override, sort_keys=False
        )
        (folder / f"{name_of(task, mode)}.yaml").write_text(text)
    make_model_folder(Path(model), output / "model", question_frame(mode, prompts))
    words = command(tasks, mode, gpus=gpus, batch_size=batch_size)
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment().items())
    script = output / "command.sh"
    script.write_text(
        "#!/usr/bin/env bash\nset -e\n"
        'cd "$(dirname "${BASH_SOURCE[0]}")"\n'
        f'{exports}"${{PYTHON:-python}}" {shlex.join(words)}\n'
    )
    script.chmod(0o755)
    (output / "evaluation.json").write_text(
        json.dumps({"model": model, "tasks": tasks, "mode": mode, "layout": prompts.layout}, indent=2) + "\n"
    )
    return words


def environment() -> dict[str, str]:
    """What SGLang needs to find the model, as in training."""
    import llavaonevision1_5

    return llavaonevision1_5.sglang_environment()


def read_results(folder: Path) -> dict[str, dict[str, float]]:
    """task -> metric -> points (0 to 100) of the newest result file of every task below `folder`.

    Raises FileNotFoundError when there is none. Names lose the mode's ending, so that modes can be compared.
    """
    files = sorted(
        {path for pattern in RESULT_FILES for path in folder.rglob(pattern)}, key=lambda p: p.stat().st_mtime
    )
    if not files:
        raise FileNotFoundError(f"{folder} holds no result file of lmms-eval ({' or '.join(RESULT_FILES)})")
    tasks: dict[str, dict[str, float]] = {}
    for path in files:
        for task, metrics in json.loads(path.read_text()).get("results", {}).items():
            name = task.removesuffix("_fast").removesuffix("_thinking")
            tasks[name] = {
                key.split(",")[0]: 100 * value if 0 <= value <= 1 else float(value)
                for key, value in metrics.items()
                if isinstance(value, (int, float)) and "stderr" not in key and not isinstance(value, bool)
            }
    return tasks


def compare(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> list[Change]:
    """Every metric that both runs have. A metric counts in points; one of 0 to 1 has been multiplied by 100."""
    return [
        Change(task, metric, before[task][metric], after[task][metric], is_gated(task))
        for task in sorted(before.keys() & after.keys())
        for metric in sorted(before[task].keys() & after[task].keys())
    ]


def is_gated(task: str) -> bool:
    """Whether the forgetting gate watches a task, however its name is written (docvqa_val, CharXiv, ...)."""
    plain = task.lower().replace("-", "_")
    return any(name in plain or name.replace("_", "") in plain.replace("_", "") for name in GATED_TASKS)


def table(changes: list[Change], gate: float) -> str:
    """The changes as text; tasks below the gate are marked."""
    lines = [f"{'task':<28}{'metric':<24}{'before':>8}{'after':>8}{'gain':>8}"]
    for change in changes:
        mark = " <- forgotten" if is_forgotten(change, gate) else " (gate)" if change.is_gated else ""
        lines.append(
            f"{change.task:<28}{change.metric:<24}{change.before:>8.1f}{change.after:>8.1f}{change.gain:>+8.1f}{mark}"
        )
    return "\n".join(lines)


def is_forgotten(change: Change, gate: float) -> bool:
    return change.is_gated and change.gain < -gate - 1e-9


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _compare_command(argv[1:]) if argv[:1] == ["compare"] else _run_command(argv)
    except (FileNotFoundError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1


def _run_command(argv: list[str]) -> int:
    from dataset.prompts import LAYOUTS

    parser = _parser()
    parser.add_argument("--model", required=True, help="checkpoint folder, or the folder of a run")
    parser.add_argument("--tasks", required=True, nargs="+", help="names as lmms-eval lists them")
    parser.add_argument("--mode", required=True, choices=sorted(MAX_NEW_TOKENS))
    parser.add_argument("--layout", choices=LAYOUTS, help="of prompts (default: the run's, else recipe)")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--gpus", type=int, default=1, help="tensor parallel size of the server")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--write-only", action="store_true", help="do not run the command")
    args = parser.parse_args(argv)
    prompts = trained_prompts(args.model, args.layout)
    model = run_manifest.checkpoint_of(args.model)
    check_model(model)
    check_output(args.output)
    options = {"prompts": prompts, "gpus": args.gpus, "batch_size": args.batch_size}
    write_run(model, args.tasks, args.mode, args.output, **options)
    print(f"wrote {args.output}/command.sh and {len(args.tasks)} task files; prompt layout: {prompts.layout}")
    if args.write_only:
        return 0
    if importlib.util.find_spec("lmms_eval") is None:
        print("lmms-eval is not installed here: pip install lmms-eval, then run the script", file=sys.stderr)
        return 3
    variables = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(["bash", args.output / "command.sh"], env=variables, check=False).returncode


def _compare_command(argv: list[str]) -> int:
    parser = _parser()
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--gate", type=float, default=GATE_POINTS, help="points that a gated task may lose")
    args = parser.parse_args(argv)
    changes = compare(read_results(args.before), read_results(args.after))
    if not changes:
        raise ValueError(f"{args.before} and {args.after} have no task and metric in common")
    print(table(changes, args.gate))
    missing = [
        name
        for name in GATED_TASKS
        if not any(is_gated(c.task) and name[:4] in c.task.lower() for c in changes)
    ]
    if missing:
        print(f"not measured in both runs, so the gate says nothing of: {', '.join(missing)}")
    forgotten = sorted({change.task for change in changes if is_forgotten(change, args.gate)})
    if forgotten:
        print(f"FORGOTTEN, more than {args.gate:g} points lost: {', '.join(forgotten)}")
    return 1 if forgotten else 0


def _parser() -> argparse.ArgumentParser:
    return Parser(
        prog="python -m utils.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
