"""lmms-eval itself, in its own environment: `make test-evaluation`."""

import os
import subprocess

import pytest

from dataset.prompts import ANSWER_PROMPT, THINKING_PROMPTS, PromptConfig
from tests.evaluation import shipped_documents
from tests.evaluation.scripted_model import Scripted
from utils.evaluate import prepare, results, run
from utils.evaluate.benchmarks import BENCHMARKS

pytestmark = [pytest.mark.evaluation, pytest.mark.timeout(900)]
DOCUMENTS = shipped_documents.by_benchmark()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    shipped_documents.write(root)
    return root


@pytest.fixture(scope="module", params=prepare.MODES)
def evaluated(request, hub, tiny_checkpoint, tmp_path_factory):
    """Every benchmark of the table, asked and scored by lmms-eval; the scripted model answers."""
    mode, folder = request.param, tmp_path_factory.mktemp(f"{request.param} run")  # a path with a space
    names = prepare.write_run(
        str(tiny_checkpoint), list(BENCHMARKS), [], mode, folder, prompts=PromptConfig()
    )
    with Scripted(mode) as script:
        variables = {
            **os.environ,
            **run.judge_environment(script.url, "scripted"),
            "PYTHON": str(run.environment_python()),
            "BASE_URL": script.url,
            "DATA_ROOT": str(hub),
            "HF_HOME": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        log = folder / "lmms_eval.log"
        with log.open("w") as file:
            status = subprocess.run(
                ["bash", folder / "command.sh"],
                env=variables,
                stdout=file,
                stderr=file,
                timeout=800,
                check=False,
            ).returncode
    assert script.errors == []
    run.check(folder, names, status, log)
    return mode, folder, script


def test_every_benchmark_is_scored_as_its_answers_deserve(evaluated):
    mode, folder, _ = evaluated
    found = results.read(folder)
    wanted = {}
    for name, documents in DOCUMENTS.items():
        special = documents.points_thinking if mode == "thinking" else None
        wanted[name] = documents.points if special is None else special
    measured = {name: found[name].metrics.get(found[name].main) for name in BENCHMARKS}
    assert measured == {name: pytest.approx(points, abs=0.02) for name, points in wanted.items()}


def test_every_sample_has_its_score_and_its_document(evaluated):
    mode, folder, _ = evaluated
    found = results.read(folder)
    unpaired = {name for name in BENCHMARKS if not found[name].scores}
    assert unpaired == ({"charxiv_dq"} if mode == "fast" else set()), (
        "scored by a judge, all of them together"
    )
    for name in BENCHMARKS.keys() - unpaired:
        scores = list(found[name].scores.values())
        assert sum(scores) / len(scores) == pytest.approx(2 / 3), name
    assert len(set(found["docvqa"].clusters.values())) == 2
    assert len(set(found["infovqa"].clusters.values())) == 1
    assert len(set(found["mmstar"].clusters.values())) == 3


def test_every_question_is_asked_in_the_words_of_training(evaluated):
    """What the template makes of the messages that lmms-eval sent: one instruction, the mode's, at the end."""
    import jinja2

    mode, folder, script = evaluated
    template = jinja2.Environment().from_string((folder / "model" / "chat_template.jinja").read_text())
    wanted = {"fast": ANSWER_PROMPT, "thinking": THINKING_PROMPTS[0]}[mode]
    assert len(script.asked) >= 3 * len(BENCHMARKS)
    for messages in script.asked:
        plain = [
            {
                "role": message["role"],
                "content": [
                    {"type": "image"} if part["type"] == "image_url" else part for part in message["content"]
                ],
            }
            for message in messages
        ]
        text = template.render(messages=plain, add_generation_prompt=True)
        assert text.endswith(f"{wanted}<|im_end|>\n<|im_start|>assistant\n"), text
        assert text.count("<|im_start|>system") == 1
        assert text.count("<think>") == (mode == "thinking"), text
        assert text.count("<|image_pad|>") == 1


def test_a_judge_was_asked_where_the_task_asks_one(evaluated):
    mode, _, script = evaluated
    assert (script.judged > 0) == (mode == "fast"), "the reasoning variants read answers by rules"
