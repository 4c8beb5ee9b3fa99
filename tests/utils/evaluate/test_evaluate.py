"""The evaluation that is prepared, and the table before and after with the forgetting gate."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml
from transformers import AutoProcessor

from dataset.encode import encode_prompt, image_limits
from dataset.prompts import LAYOUTS, THINKING_PROMPTS, PromptConfig
from llavaonevision1_5 import tiny
from tests.dataset.conftest import make_row
from utils.evaluate import cli, compare, prepare, results, run, scoring
from utils.evaluate.benchmarks import BENCHMARKS, ROWS
from utils.sample import Sample


@pytest.fixture(scope="module")
def processor():
    return tiny.build_processor()


@pytest.fixture
def without_lmms_eval(monkeypatch, tmp_path):
    monkeypatch.setattr(prepare, "ENVIRONMENT", tmp_path / "no environment")


@pytest.fixture
def run_folder(tiny_checkpoint, tmp_path, without_lmms_eval):
    arguments = ["--model", str(tiny_checkpoint), "--tasks", "docvqa", "vstar", "--mode", "thinking"]
    assert cli.main([*arguments, "--output", str(tmp_path / "run"), "--write-only"]) == 0
    return tmp_path / "run"


class Loader(yaml.SafeLoader):
    """Reads `!function` as the name behind it."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def read_task(path):
    return yaml.load(path.read_text(), Loader=Loader)


def test_a_run_needs_no_editing(run_folder, tmp_path):
    override = read_task(run_folder / "tasks" / "docvqa_thinking.yaml")
    assert override["include"] == "docvqa/reasoning/docvqa_val_reasoning.yaml"
    assert override["task"] == "docvqa_thinking"
    assert override["generation_kwargs"]["max_new_tokens"] == 16384
    assert override["filter_list"][0]["filter"][0]["function"] == "utils.evaluate.scoring.AnswerFilter"
    assert override["process_results"] == "utils.evaluate.scoring.process_results_docvqa__thinking"
    script = (run_folder / "command.sh").read_text()
    assert "--tasks docvqa_thinking,vstar_thinking" in script
    assert str(run_folder) not in script, "the folder may be moved"

    moved = run_folder.rename(tmp_path / "moved to here")
    (tmp_path / "python").write_text('#!/bin/sh\npwd\necho "$PYTHONPATH"\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
    ran = subprocess.run(
        ["bash", moved / "command.sh"], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    place, path, words = ran.stdout.splitlines()
    assert Path(place) == moved
    assert Path(path) == prepare.ROOT
    assert words.startswith(
        "-m lmms_eval --model async_openai --model_args model_version=evaluated,base_url=http://127.0.0.1:30080/v1,"
    )
    assert f"--include_path {moved}/tasks " in words
    environment |= {"BASE_URL": "http://127.0.0.1:1/v1", "DATA_ROOT": "/"}
    ran = subprocess.run(
        ["bash", moved / "command.sh"], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("/\n")
    assert "base_url=http://127.0.0.1:1/v1," in ran.stdout


def test_the_command_finds_a_project_that_was_moved(
    tiny_checkpoint, tmp_path, monkeypatch, without_lmms_eval
):
    old, new = tmp_path / "old", tmp_path / "new place"
    (old / "utils" / "evaluate").mkdir(parents=True)
    monkeypatch.setattr(prepare, "ROOT", old)
    words = ["--model", str(tiny_checkpoint), "--tasks", "docvqa", "--mode", "fast", "--write-only"]
    assert cli.main([*words, "--output", str(old / "runs" / "measured")]) == 0
    (tmp_path / "python").write_text('#!/bin/sh\necho "$PYTHONPATH"\n')
    (tmp_path / "python").chmod(0o755)

    def project_of(folder):
        script = ["bash", folder / "command.sh"]
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
        ran = subprocess.run(script, cwd="/", env=environment, capture_output=True, text=True, check=True)
        return Path(ran.stdout.strip()).resolve()

    shutil.copytree(old / "runs" / "measured", tmp_path / "alone", symlinks=True)
    assert project_of(tmp_path / "alone") == old
    old.rename(new)
    assert project_of(new / "runs" / "measured") == new


def test_curated_data_and_the_other_backend(tiny_checkpoint, tmp_path, without_lmms_eval):
    data = tmp_path / "mine" / "held-out.parquet"
    data.parent.mkdir()
    data.write_bytes(b"")
    arguments = [
        "--model",
        str(tiny_checkpoint),
        "--mode",
        "fast",
        "--output",
        str(tmp_path / "run"),
        "--write-only",
    ]
    extra = ["--data", str(data), "--backend", "transformers", "--device", "cpu", "--limit", "3"]
    assert cli.main([*arguments, *extra]) == 0
    override = read_task(tmp_path / "run" / "tasks" / "mine_held_out_fast.yaml")
    assert override["dataset_kwargs"]["data_files"] == {"measured": [str(data)]}
    assert override["process_results"] == "utils.evaluate.curated.process_results"
    script = (tmp_path / "run" / "command.sh").read_text()
    assert '--model llava_onevision1_5 --model_args pretrained="$here"/model,device=cpu' in script
    assert "--limit 3" in script
    record = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert record["implementation"] == "llavaonevision1_5 of this project, for transformers"


def test_what_cannot_be_measured_is_said(tiny_checkpoint, tmp_path, without_lmms_eval, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    arguments = ["--model", str(tiny_checkpoint), "--mode", "fast", "--output", str(tmp_path / "run")]

    def refused(*extra):
        assert cli.main([*arguments, *extra]) == 1
        return capsys.readouterr().err

    assert "other tasks need `make evaluation-env` first" in refused("--tasks", "nocaps_val")
    assert "mathvista may ask a judge" in refused("--tasks", "mathvista")
    assert "there is no such file" in refused("--data", str(tmp_path / "absent.parquet"))
    assert "lmms-eval is not installed: make evaluation-env" in refused("--tasks", "mmstar")
    with pytest.raises(SystemExit):
        cli.main(arguments)


def test_the_model_folder_asks_and_resizes_as_the_mode_wants(run_folder, tiny_checkpoint):
    model = run_folder / "model"
    assert (model / "model.safetensors").is_symlink()
    limits = json.loads((model / "preprocessor_config.json").read_text())
    assert limits["max_pixels"] == 3_240_000
    assert limits["size"]["longest_edge"] == 3_240_000
    original = json.loads((tiny_checkpoint / "preprocessor_config.json").read_text())
    assert original["size"]["longest_edge"] != 3_240_000, "the checkpoint itself is untouched"
    # transformers 5 prefers processor_config.json where a checkpoint has both
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    assert image_limits(processor).max_pixels == 3_240_000

    render = jinja2.Environment().from_string((model / "chat_template.jinja").read_text()).render
    question = {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}
    text = render(messages=[question], add_generation_prompt=True)
    assert text.endswith(f"2 + 2?\n{THINKING_PROMPTS[0]}<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>system") == 1
    assert render(messages=[{"role": "user", "content": "2 + 2?"}], add_generation_prompt=True) == text
    own = render(messages=[{"role": "system", "content": "Be brief."}, question], add_generation_prompt=True)
    assert "Be brief." in own
    assert "<think>" not in own, "a task's own system prompt stays alone"
    for tag in (
        "<think>",
        "<analysis>",
    ):  # lmms-eval's reasoning variants ask for the same in words of their own
        asking = {"role": "system", "content": [{"type": "text", "text": f"Reason within {tag} tags."}]}
        assert render(messages=[asking, question], add_generation_prompt=True) == text


def test_a_benchmark_asks_in_the_words_and_layout_of_training(tiny_checkpoint, processor):
    template = (tiny_checkpoint / "chat_template.jinja").read_text()
    sample = Sample.from_row(make_row(problem="<image>2 + 2?", prompt_type="think"))
    question = [{"type": "image"}, {"type": "text", "text": "2 + 2?"}]
    for layout in LAYOUTS:
        prompts = PromptConfig(layout=layout)
        wrapped = prepare.framed_template(template, prepare.question_frame("thinking", prompts))
        render = jinja2.Environment().from_string(wrapped).render
        asked = render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)
        assert asked == encode_prompt(processor, sample, prompts=prompts).text


def test_modes_differ_in_prompt_and_length():
    frames = [prepare.question_frame(mode, PromptConfig()).after for mode in ("fast", "thinking")]
    assert ["<think>" in text for text in frames] == [False, True]
    assert prepare.MAX_NEW_TOKENS["fast"] < prepare.MAX_NEW_TOKENS["thinking"]
    with pytest.raises(ValueError, match=r"mode is 'slow'; wanted one of \['fast', 'thinking'\]"):
        prepare.question_frame("slow", PromptConfig())


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
    assert cli.main(["compare", str(before), str(folder.parent)]) == status
    out = capsys.readouterr().out
    assert "+8.8" in out
    assert f"{100 * after - 95:+.1f}" in out
    assert ("FORGOTTEN" in out) == (status == 1)
    assert "stderr" not in out
    assert "noise not known" in out, "nothing is known of single samples here: the size of a loss decides"
    assert "charxiv, vl_rewardbench" in out, "what was not measured is said"


def test_only_the_gated_tasks_can_fail(tmp_path, capsys):
    before = write_results(tmp_path / "before", mmmu_val={"acc": 0.6})
    after = write_results(tmp_path / "after", mmmu_val={"acc": 0.3})
    assert cli.main(["compare", str(before), str(after)]) == 0
    assert "-30.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "gated"),
    [("docvqa_val", True), ("CharXiv_val_reasoning", True), ("VL-RewardBench", True), ("vlrewardbench", True),
     ("infovqa_val", False), ("chartqa", False), ("mathverse", False)],
)  # fmt: skip
def test_names_of_gated_benchmarks(task, gated):
    assert compare.is_gated(task) is gated


def test_nothing_in_common_is_an_error(tmp_path, capsys):
    before = write_results(tmp_path / "before", mmmu_val={"acc": 0.6})
    after = write_results(tmp_path / "after", chartqa={"acc": 0.3})
    assert cli.main(["compare", str(before), str(after)]) == 1
    assert cli.main(["compare", str(before), str(tmp_path / "absent")]) == 1
    err = capsys.readouterr().err
    assert "no task and metric in common" in err
    assert "holds no result file" in err


def write_samples(folder, task, scores, **columns):
    lines = [
        json.dumps(
            {
                "doc_id": i,
                "filtered_resps": "x",
                "sample_score": score,
                **{k: v[i] for k, v in columns.items()},
            }
        )
        for i, score in enumerate(scores)
    ]
    (folder / f"20250101_samples_{task}.jsonl").write_text("\n".join(lines) + "\n")


def both_runs(tmp_path, before, after):
    folders = []
    for name, mode, values in (("before", "fast", before), ("after", "thinking", after)):
        share = sum(values) / len(values)
        folder = write_results(
            tmp_path / name,
            **{f"docvqa_{mode}": {"anls,answer": share}, f"vstar_{mode}": {
                "vstar_overall_acc,answer" if mode == "fast" else "vstar_overall_acc_score,answer":
                100 * share if mode == "fast" else share}},
        )  # fmt: skip
        for task in (f"docvqa_{mode}", f"vstar_{mode}"):
            write_samples(folder, task, values)
        folders.append(folder)
    return folders


def test_a_comparison_knows_its_noise_and_is_written_down(tmp_path, capsys):
    folders = both_runs(tmp_path, [1] * 190 + [0] * 10, [1] * 180 + [0] * 20)
    assert cli.main(["compare", *map(str, folders)]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("DocVQA")]
    assert "95.0   90.0   -5.0  [-8.0, -2.0]" in line
    assert line.endswith("<- forgotten")
    assert "0.002" in line, "McNemar: 2 / 2^10"
    assert "FORGOTTEN: DocVQA lost 5.0 points" in out
    text = (folders[1] / "comparison.md").read_text()
    assert "| Task | Benchmark | before | after |" in text
    assert "| OCR & Chart | DocVQA | 95.0 | 90.0 (-5.0 ± 3.0) * ! |" in text
    assert "| Others | V* | 95.0 | 90.0 (-5.0 ± 3.0) * |" in text, "scales of 1 and of 100 in one table"
    record = json.loads((folders[1] / "comparison.json").read_text())
    assert record["after"][0]["noise"]["needed_for_a_point"] > 1000
    assert (folders[1] / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_three_columns_as_on_the_project_page(tmp_path, capsys):
    before, thinking = both_runs(tmp_path, [1] * 60 + [0] * 40, [1] * 70 + [0] * 30)
    fast = write_results(
        tmp_path / "fast", docvqa_fast={"anls,answer": 0.6}, mmstar_fast={"average,answer": 0.5}
    )
    assert (
        cli.main(["compare", str(before), str(thinking), str(fast), "--output", str(tmp_path / "out")]) == 0
    )
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| Task | Benchmark | before | thinking | fast |" in text
    assert "| OCR & Chart | DocVQA | 60.0 | 70.0 (+10.0 ± " in text
    assert "V*" not in text, "only what all columns have"


def test_a_loss_within_noise_does_not_fail(tmp_path, capsys):
    folders = both_runs(tmp_path, [1] * 95 + [0] * 5, [1] * 92 + [0] * 8)
    assert cli.main(["compare", *map(str, folders)]) == 0
    out = capsys.readouterr().out
    assert "DocVQA lost 3.0 points, which may be noise" in out
    assert "samples would show 2 points" in out


def test_numbers_as_lmms_eval_writes_them(tmp_path):
    folder = write_results(
        tmp_path / "run",
        wemath_thinking={"wemath_loose,answer": "61.50%"},
        mathvista_fast={"llm_as_judge_eval,answer": None},
        mathvision_fast={"mathvision_standard_eval,answer": 0.5},
        other={"acc,none": 0.25, "acc_stderr,none": "N/A", "samples": 12},
    )
    found = results.read(folder)
    assert found["wemath"].metrics == {"wemath_loose": pytest.approx(61.5)}
    assert found["mathvista"].metrics == {"llm_as_judge_eval": 0.0}, "it gives nothing where nothing is right"
    assert found["mathvision"].metrics == {"mathvision_standard_eval": 0.5}, "half a point, not fifty"
    assert found["other"].metrics == {"acc": 25.0}
    write_results(tmp_path / "run" / "again", mathvista_thinking={"acc_score,answer": 0.5})
    with pytest.raises(ValueError, match="mathvista in both modes"):
        results.read(tmp_path / "run")


def test_requests_that_failed_are_no_wrong_answers(tmp_path):
    """lmms-eval writes them down as answers, scores them and ends with status 0; so it does after an exception."""
    folder = write_results(tmp_path / "run", vstar_fast={"vstar_overall_acc,answer": 0.0})
    log = folder / "lmms_eval.log"
    log.write_text("all is well\n")
    write_samples(
        folder, "vstar_fast", [1, 1], resps=[["B"], ["[LMMS_EVAL_REQUEST_FAILED after 3 retries] no"]]
    )
    with pytest.raises(
        run.EvaluationFailed, match="requests failed and count as wrong answers: vstar_fast 1"
    ):
        run.check(folder, ["vstar_fast"], 0, log)
    with pytest.raises(run.EvaluationFailed, match="no results of docvqa_fast"):
        run.check(folder, ["docvqa_fast"], 0, log)
    with pytest.raises(run.EvaluationFailed, match="ended with status 3"):
        run.check(folder, ["vstar_fast"], 3, log)
    log.write_text("Error out of memory in generating\n")
    with pytest.raises(run.EvaluationFailed, match="failed at 1 batches"):
        run.check(folder, ["vstar_fast"], 0, log)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("<answer>B</answer>", "B"), ("<think>A? <answer>A</answer> no</think><answer> B </answer>", "B"),
     ("<answer>A</answer> no, <answer>B</answer>", "B"), ("B", "B"), ("<think>so</think> B", "B"),
     ("<think>It is B. B", ""), ("", ""), ("<answer>B", "<answer>B")],
)  # fmt: skip
def test_the_answer_of_a_text(text, answer):
    assert scoring.answer_of(text) == answer


@pytest.mark.parametrize(
    ("value", "score"),
    [(True, 1.0), (0.25, 0.25), ({"score": 1}, 1.0), ({"scores": [False]}, 0.0), ({"true_false": True}, 1.0),
     ({"pred": "b", "answer": "B"}, 1.0), ({"pred_answer": "A", "answer": "B"}, 0.0), ({"group": 1}, None),
     (None, None),      ({"acc_score": 1, "answer": "B"}, 1.0)],
)  # fmt: skip
def test_the_score_of_a_sample(value, score):
    assert scoring.sample_score(value, {}) == score


def test_the_table_is_that_of_the_project_page(capsys):
    assert cli.main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(ROWS)
    assert len(BENCHMARKS) == len(ROWS) == 26
    means = [sum(row.published[i] for row in ROWS if row.group == "Reasoning") / 6 for i in range(3)]
    assert means == [pytest.approx(mean, abs=0.051) for mean in (45.8, 51.8, 46.8)], "the page's own averages"
    assert {row.name for row in ROWS if row.is_gated} == {
        name for name in BENCHMARKS if compare.is_gated(name)
    }
