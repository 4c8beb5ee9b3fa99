"""The folder of one evaluation: model, task files and the command, so that lmms-eval runs without anything to edit.

`model/` is the checkpoint by links with the mode's instruction in its chat template and the evaluation's image limit in
its processor; `tasks/NAME_MODE.yaml` the task as lmms-eval ships it (`include`) with the length of an answer and the
functions of `scoring`; `command.sh` the command. Its model is ours in either backend: SGLang's through the gateway, or
transformers' through `auto_map`; never the modeling code that was published, which mixes up a prompt's images.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.evaluate.benchmarks import BENCHMARKS

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-evaluation"  # made by `make evaluation-env`
MAX_PIXELS = 3_240_000  # of the recipe's evaluation
MIN_PIXELS = 56 * 56
MAX_NEW_TOKENS = {"fast": 1024, "thinking": 16384}
MODES = tuple(MAX_NEW_TOKENS)
BACKENDS = ("server", "transformers")
PORT = 30080  # of the gateway when command.sh is run by hand
TIMEOUT_SECONDS = 3600
NUM_TRIES = 3
HERE, BASE_URL = "HERE_OF_SCRIPT", "BASE_URL_OF_SCRIPT"


class Function(str):
    """A dotted name, written as `!function` into a task file."""

    __slots__ = ()


@dataclass(frozen=True)
class Options:
    """How a prepared evaluation runs."""

    backend: str = "server"
    concurrency: int = 64  # requests in flight at the server
    device: str = "cuda"  # of the transformers backend
    max_new_tokens: int | None = None  # instead of the mode's
    limit: int | None = None  # documents per task


def question_frame(mode: str, prompts: Any) -> Any:
    """What stands around every question in `fast` or `thinking` mode under these prompt settings: a
    `dataset.prompts.Frame`. Raises ValueError for another mode.
    """
    from dataset.prompts import frame

    types = {"fast": "answer", "thinking": "think"}
    if mode not in types:
        raise ValueError(f"mode is {mode!r}; wanted one of {sorted(types)}")
    return frame(types[mode], config=prompts)


def framed_template(template: str, around: Any) -> str:
    """A chat template that puts a frame around the last question, unless the conversation brings a system prompt of
    its own. One that asks for thinking in tags, as lmms-eval's reasoning variants bring it, gives way to the frame.
    """
    before, after = (
        json.dumps([{"type": "text", "text": text}] if text else []) for text in (around.before, around.after)
    )  # JSON of texts is Jinja as well
    return (
        "{%- if messages[0]['role'] == 'system' -%}"
        "{%- set said = messages[0]['content'] -%}"
        "{%- set said = said if said is string else said | map(attribute='text') | join -%}"
        "{%- if '<think>' in said or '<analysis>' in said -%}{%- set messages = messages[1:] -%}{%- endif -%}"
        "{%- endif -%}"
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
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (model / name).is_file():
            continue
        limits = json.loads((model / name).read_text())
        for part in (limits, limits.get("image_processor") or {}):
            if "max_pixels" in part or (part is limits and name.startswith("pre")):
                part["max_pixels"] = MAX_PIXELS
            if "longest_edge" in (part.get("size") or {}):
                part["size"]["longest_edge"] = MAX_PIXELS
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
    """How a task is called in the results of a mode."""
    return f"{task}_{mode}"


def tasks_root() -> Path | None:
    """`lmms_eval/tasks` of the evaluation environment; None before `make evaluation-env`."""
    found = sorted(ENVIRONMENT.glob("lib/python3*/site-packages/lmms_eval/tasks"))
    return found[0] if found else None


def task_file(task: str, mode: str) -> str:
    """The file, below `lmms_eval/tasks`, of a benchmark's name or of any task that has a file of its own name.

    Raises ValueError for a name that the installed lmms-eval lacks.
    """
    root = tasks_root()
    if task in BENCHMARKS:
        file = BENCHMARKS[task].task(mode).file
        if root is not None and not (root / file).is_file():
            raise ValueError(f"{task}: the installed lmms-eval has no {file}")
        return file
    if root is None:
        raise ValueError(
            f"{task!r} is none of {', '.join(BENCHMARKS)}; other tasks need `make evaluation-env` first"
        )
    found = sorted(root.rglob(f"{task}.yaml"))
    if not found:
        near = sorted(path.stem for path in root.rglob("*.yaml") if task.split("_", 1)[0] in path.stem)[:8]
        raise ValueError(
            f"lmms-eval has no task {task!r} of its own file (a group? name its tasks); near it: {near}"
        )
    return str(found[0].relative_to(root))


def task_override(task: str, mode: str, max_new_tokens: int | None = None) -> dict[str, Any]:
    """A task file of lmms-eval: the shipped task under a name of ours. Questions and scoring stay the task's own."""
    file, root = task_file(task, mode), tasks_root()
    path = root / file if root is not None else Path(file)
    override = {
        "include": str(path),
        "task": name_of(task, mode),
        "generation_kwargs": _generation(mode, max_new_tokens),
        "filter_list": [
            {
                "name": "answer",
                "filter": [{"function": Function("utils.evaluate.scoring.AnswerFilter"), "file": file}],
            }
        ],
    }
    if task in BENCHMARKS and (root is None or BENCHMARKS[task].cluster or _scores_itself(path)):
        override["process_results"] = Function(f"utils.evaluate.scoring.process_results_{task}__{mode}")
    if task == "wemath":
        loose = {"metric": "wemath_loose", "aggregation": Function("utils.evaluate.scoring.wemath_loose")}
        override["metric_list"] = [
            {"metric": "acc_score", "aggregation": "mean", "higher_is_better": True},
            loose | {"higher_is_better": True},
        ]
    return override


def data_override(data: str, mode: str, max_new_tokens: int | None = None) -> dict[str, Any]:
    """A task file for curated parquet files: asked and scored as in training (`curated`).

    Raises FileNotFoundError for a path that is not there, ValueError for one that is not parquet.
    """
    path = Path(data).resolve()
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not path.exists():
        raise FileNotFoundError(f"--data {data}: there is no such file or folder")
    if not files or any(file.suffix != ".parquet" for file in files):
        raise ValueError(f"--data {data}: wanted parquet files of curated samples")
    functions = {
        name: Function(f"utils.evaluate.curated.{name}")
        for name in ("doc_to_messages", "doc_to_visual", "doc_to_text", "doc_to_target", "process_results")
    }
    return {
        "task": name_of(name_of_data(data), mode),
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"measured": [str(file) for file in files]}},
        "test_split": "measured",
        "output_type": "generate_until",
        **functions,
        "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": _generation(mode, max_new_tokens),
    }


def name_of_data(data: str) -> str:
    """How curated data is called in results: its last two path parts.

    >>> name_of_data("data/digits/stage1/heldout.parquet")
    'stage1_heldout'
    """
    return "_".join(Path(data).with_suffix("").parts[-2:]).replace("-", "_")


def _generation(mode: str, max_new_tokens: int | None) -> dict[str, Any]:
    return {"max_new_tokens": max_new_tokens or MAX_NEW_TOKENS[mode], "temperature": 0, "do_sample": False}


def _scores_itself(path: Path) -> bool:
    """Whether a task file or a template that it includes names `process_results`."""
    text = path.read_text()
    if "process_results:" in text:
        return True
    included = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("include:")]
    return any(_scores_itself(path.parent / name) for name in included)


def to_yaml(override: dict[str, Any]) -> str:
    """A task file's text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
    return yaml.dump(override, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def command(names: Sequence[str], options: Options) -> list[str]:
    """The arguments of Python that run lmms-eval on a prepared folder; placeholders stand for what the script knows."""
    if options.backend == "server":
        model = "async_openai"
        arguments = {
            "model_version": "evaluated",
            "base_url": BASE_URL,
            "api_key": "none",
            "num_cpus": options.concurrency,  # its name for requests in flight
            "timeout": TIMEOUT_SECONDS,
            "max_retries": NUM_TRIES,
        }
    else:
        model = "llava_onevision1_5"
        arguments = {
            "pretrained": f"{HERE}/model",
            "device": options.device,
            "device_map": options.device,
            "min_pixels": MIN_PIXELS,
            "max_pixels": MAX_PIXELS,
        }
    words = [
        *("-m", "lmms_eval"),
        *("--model", model),
        *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
        *("--include_path", f"{HERE}/tasks"),
        *("--tasks", ",".join(names)),
        *("--batch_size", "1"),
        *("--reasoning_tags", "none"),  # the variants that score the format look for the tags themselves
        "--log_samples",
        *("--output_path", f"{HERE}/results"),
    ]
    return words if options.limit is None else [*words, "--limit", str(options.limit)]


def write_run(
    model: str,
    tasks: Sequence[str],
    data: Sequence[str],
    mode: str,
    output: Path,
    *,
    prompts: Any,
    options: Options = Options(),
) -> list[str]:
    """Write model folder, task files and `command.sh` under `output`; returns the names of the tasks in the results.

    The script names everything from its own folder, which may be moved, alone or with the project around it; it runs
    `$PYTHON` (default: the evaluation environment's) and asks `$BASE_URL` (default: a gateway on port 30080 of this
    machine).
    """
    overrides = [task_override(task, mode, options.max_new_tokens) for task in tasks]
    overrides += [data_override(path, mode, options.max_new_tokens) for path in data]
    names = [override["task"] for override in overrides]
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks of one name among {', '.join(names)}")
    folder = output / "tasks"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for override in overrides:
        (folder / f"{override['task']}.yaml").write_text(f"# made by utils.evaluate\n{to_yaml(override)}")
    make_model_folder(Path(model), output / "model", question_frame(mode, prompts))
    script = output / "command.sh"
    script.write_text(_script(command(names, options), output))
    script.chmod(0o755)
    record = {
        "model": str(model),
        "tasks": list(tasks),
        "data": list(data),
        "mode": mode,
        "layout": prompts.layout,
        "backend": options.backend,
        "implementation": "llavaonevision1_5 of this project, for "
        + ("SGLang" if options.backend == "server" else "transformers"),
    }
    (output / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n")
    return names


def _script(words: Sequence[str], output: Path) -> str:
    """A folder below the project finds it from its own place, so that the project may be moved, else by its path."""
    fallback = f"project={shlex.quote(str(ROOT))}\n"
    if output.resolve().is_relative_to(ROOT):
        up = os.path.relpath(ROOT, output.resolve())
        fallback = f'project="$here/{up}"\n[ -d "$project/utils/evaluate" ] || {fallback}'
    text = shlex.join(words).replace(HERE, '"$here"')
    text = text.replace(BASE_URL, f'"${{BASE_URL:-http://127.0.0.1:{PORT}/v1}}"')
    return (
        "#!/usr/bin/env bash\nset -e\n"
        'here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\n'
        'cd "${DATA_ROOT:-$here}"  # data sets in folders named as on the Hub are taken from here\n'
        f"{fallback}"
        'export PYTHONPATH="$project"\n'
        f'"${{PYTHON:-$project/{ENVIRONMENT.name}/bin/python}}" {text}\n'
    )
