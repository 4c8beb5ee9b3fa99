"""The lmms-eval run that is written, the table before and after, and the forgetting gate."""

import json
import os
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

from dataset.encode import encode_prompt
from dataset.prompts import LAYOUTS, THINKING_PROMPTS, PromptConfig
from llavaonevision1_5 import tiny
from tests.dataset.conftest import make_row
from utils.evaluate import cli as evaluate
from utils.sample import Sample


@pytest.fixture(scope="module")
def processor():
    return tiny.build_processor()


@pytest.fixture
def run_folder(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "task_folder", lambda task: tmp_path / "shipped")
    arguments = ["--model", str(tiny_checkpoint), "--tasks", "docvqa_val", "mmmu_val", "--mode", "thinking"]
    assert evaluate.main([*arguments, "--output", str(tmp_path / "run"), "--write-only"]) == 0
    return tmp_path / "run"


def test_a_run_needs_no_editing(run_folder, tmp_path):
    override = yaml.safe_load((run_folder / "tasks" / "docvqa_val_thinking.yaml").read_text())
    assert override["include"] == str(tmp_path / "shipped" / "docvqa_val.yaml")
    assert override["task"] == "docvqa_val_thinking"
    assert override["generation_kwargs"]["max_new_tokens"] == 16384
    script = (run_folder / "command.sh").read_text()
    assert "--tasks docvqa_val_thinking,mmmu_val_thinking" in script
    assert str(run_folder) not in script, "the folder may be moved"
    assert "SGLANG_EXTERNAL_MODEL_PACKAGE" in script

    moved = run_folder.rename(tmp_path / "moved")
    (tmp_path / "python").write_text('#!/bin/sh\npwd\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        [moved / "command.sh"], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    place, words = ran.stdout.splitlines()
    assert Path(place) == moved
    assert words.startswith("-m lmms_eval --model sglang --model_args model=model,")
    assert "--include_path tasks " in words


def test_the_model_folder_asks_and_resizes_as_the_mode_wants(run_folder, tiny_checkpoint):
    model = run_folder / "model"
    assert (model / "model.safetensors").is_symlink()
    limits = json.loads((model / "preprocessor_config.json").read_text())
    assert limits["max_pixels"] == 3_240_000
    assert limits["size"]["longest_edge"] == 3_240_000
    original = json.loads((tiny_checkpoint / "preprocessor_config.json").read_text())
    assert original["size"]["longest_edge"] != 3_240_000, "the checkpoint itself is untouched"

    render = jinja2.Environment().from_string((model / "chat_template.jinja").read_text()).render
    question = {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}
    text = render(messages=[question], add_generation_prompt=True)
    assert text.endswith(f"2 + 2?\n{THINKING_PROMPTS[0]}<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>system") == 1
    assert render(messages=[{"role": "user", "content": "2 + 2?"}], add_generation_prompt=True) == text
    own = render(messages=[{"role": "system", "content": "Be brief."}, question], add_generation_prompt=True)
    assert "Be brief." in own
    assert "<think>" not in own, "a task's own system prompt stays alone"


def test_a_benchmark_asks_in_the_words_and_layout_of_training(tiny_checkpoint, processor):
    template = (tiny_checkpoint / "chat_template.jinja").read_text()
    sample = Sample.from_row(make_row(problem="<image>2 + 2?", prompt_type="think"))
    question = [{"type": "image"}, {"type": "text", "text": "2 + 2?"}]
    for layout in LAYOUTS:
        prompts = PromptConfig(layout=layout)
        wrapped = evaluate.framed_template(template, evaluate.question_frame("thinking", prompts))
        render = jinja2.Environment().from_string(wrapped).render
        asked = render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)
        assert asked == encode_prompt(processor, sample, prompts=prompts).text


def test_modes_differ_in_prompt_and_length():
    frames = [evaluate.question_frame(mode, PromptConfig()).after for mode in ("fast", "thinking")]
    assert ["<think>" in text for text in frames] == [False, True]
    assert evaluate.MAX_NEW_TOKENS["fast"] < evaluate.MAX_NEW_TOKENS["thinking"]
    with pytest.raises(ValueError, match=r"mode is 'slow'; wanted one of \['fast', 'thinking'\]"):
        evaluate.question_frame("slow", PromptConfig())


def write_results(folder, **tasks):
    folder.mkdir(parents=True)
    (folder / "20250101_results.json").write_text(json.dumps({"results": tasks}))
    return folder


@pytest.mark.parametrize(("after", "status"), [(0.919, 1), (0.935, 0), (0.97, 0)])
def test_the_gate(tmp_path, capsys, after, status):
    """DocVQA 95.0 -> 91.9 is what thinking mode did to the published model: more than two points, so it is named."""
    before = write_results(
        tmp_path / "before",
        docvqa_val={"anls,none": 0.95, "anls_stderr,none": 0.01},
        mathvision={"acc": 25.6},
    )
    folder = write_results(
        tmp_path / "after" / "deep",
        docvqa_val_thinking={"anls,answer": after},
        mathvision_thinking={"acc": 34.4, "other": 1.0},
    )
    assert evaluate.main(["compare", str(before), str(folder.parent)]) == status
    out = capsys.readouterr().out
    assert "+8.8" in out
    assert f"{100 * after - 95:+.1f}" in out
    assert ("FORGOTTEN" in out) == (status == 1)
    assert "stderr" not in out
    assert "charxiv, vl_rewardbench" in out, "what was not measured is said"


def test_only_the_gated_tasks_can_fail(tmp_path, capsys):
    before = write_results(tmp_path / "before", mmmu_val={"acc": 0.6})
    after = write_results(tmp_path / "after", mmmu_val={"acc": 0.3})
    assert evaluate.main(["compare", str(before), str(after)]) == 0
    assert "-30.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "gated"),
    [("docvqa_val", True), ("CharXiv_val_reasoning", True), ("VL-RewardBench", True), ("vlrewardbench", True),
     ("infovqa_val", False), ("chartqa", False), ("mathverse", False)],
)  # fmt: skip
def test_names_of_gated_benchmarks(task, gated):
    assert evaluate.is_gated(task) is gated


def test_nothing_in_common_is_an_error(tmp_path, capsys):
    before = write_results(tmp_path / "before", mmmu_val={"acc": 0.6})
    after = write_results(tmp_path / "after", chartqa={"acc": 0.3})
    assert evaluate.main(["compare", str(before), str(after)]) == 1
    assert evaluate.main(["compare", str(before), str(tmp_path / "absent")]) == 1
    err = capsys.readouterr().err
    assert "no task and metric in common" in err
    assert "holds no result file" in err
