"""`python -m dataset.create` against a stand-in for SGLang: results, statistics, selection, report."""

import collections
import itertools
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.create import main
from dataset.curate.flags import make_parser, settings_from
from dataset.prompts import PromptConfig
from tests.dataset.curation_runs import (
    ROOT,
    contents,
    digits_command,
    generations_of,
    manifest_of,
    shard_rows,
)
from utils.training_file import read_sections


def test_the_command_of_the_readme_parses():
    words = [
        "--model-name",
        "./pretrained/LLaVA-OneVision-1.5-8B-Instruct",
        "--rollout-n",
        "10",
        "--dataset-name",
        "unisvg",
        "--num-workers",
        "8",
        "--output-dir",
        "./data/stage2",
        "--dataset-size",
        "200",
    ]
    settings = settings_from(make_parser("").parse_args(words), words)
    assert (settings.source.name, settings.location.path, settings.location.split) == (
        "unisvg",
        "lili24/UniSVG",
        "train",
    )
    assert (settings.num_attempts, settings.num_workers, settings.dataset_size) == (10, 8, 200)
    assert settings.output_dir == Path("data/stage2")
    assert settings.temperature == 1.0
    assert settings.max_tokens == 4096


def test_limits_prompts_and_rewards_come_from_the_configuration_of_the_training(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "seed: 7\ngconfig: {max_new_tokens: 100, temperature: 0.9}\ntrain_dataset: {max_length: 500, max_pixels: 784}\n"
        "prompts: {layout: recipe, num_thinking_prompts: 2}\nreward: {overlong_buffer_tokens: 40}\n"
    )
    file = tmp_path / "stage.yaml"
    file.write_text(
        "defaults: [base, _self_]\nprompts: {layout: release, format_guidance: true}\n"
        "train_dataset: {max_pixels: 3136}\n"
    )
    words = ["--dataset-name", "digits", "--output-dir", "out", "--model-name", "m", "--config", str(file)]
    settings = settings_from(make_parser("").parse_args(words), words)
    assert (settings.max_pixels, settings.max_prompt_tokens, settings.max_tokens) == (3136, 500, 100)
    assert (settings.temperature, settings.seed) == (0.9, 7)
    assert settings.prompts == PromptConfig("release", 2, True, 7)
    assert settings.rewards.overlong == {"max_tokens": 100, "buffer_tokens": 40}
    words += ["--max-pixels=100"]
    with pytest.raises(ValueError, match=r"--max-pixels: --config .*stage.yaml decides it"):
        settings_from(make_parser("").parse_args(words), words)
    with pytest.raises(SystemExit):  # an abbreviation would go around the check
        make_parser("").parse_args([*words[:-1], "--max-pix=100"])
    words[7] = str(tmp_path / "stag.yaml")
    with pytest.raises(FileNotFoundError, match=r"stag\.yaml: there is no such configuration"):
        settings_from(make_parser("").parse_args(words[:-1]), words[:-1])


def test_the_curation_of_the_readme_fills_the_folders_that_its_configurations_read():
    root = Path(__file__).resolve().parents[2]
    text = (root / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^python -m dataset\.create (.*?)(?:#.*)?$", text, re.MULTILINE)
    assert len(commands) == 2, "one a stage"
    for command in commands:
        words = shlex.split(command)
        args = make_parser("").parse_args(words)
        assert (
            args.output_dir == read_sections(root / args.config, ["train_dataset"])["train_dataset"]["path"]
        )
        assert settings_from(args, words).max_pixels == 512 * 512


def test_the_model_may_be_a_finished_run(tmp_path):
    words = ["--dataset-name", "digits", "--output-dir", str(tmp_path / "out"), "--model-name", str(tmp_path)]
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("{}")
    (tmp_path / "run.json").write_text(json.dumps({"finished": True, "checkpoint": "elsewhere/final"}))
    assert settings_from(make_parser("").parse_args(words), words).model_name == str(tmp_path / "final")
    (tmp_path / "run.json").write_text(json.dumps({"finished": False, "checkpoint": None}))
    with pytest.raises(ValueError, match="has not finished"):
        settings_from(make_parser("").parse_args(words), words)


def test_statistics_recomputed_from_the_stored_generations_agree_exactly(finished):
    stored = {line["sample"]["id"]: line for line in generations_of(finished) if line["kind"] == "measured"}
    rows = shard_rows(finished)
    assert len(rows) >= 10
    for row in rows:
        attempts = stored[row["id"]]["attempts"]
        rewards = [attempt["reward"] for attempt in attempts]
        solved = sum(
            attempt["parts"]["accuracy"] >= stored[row["id"]]["solved_threshold"] for attempt in attempts
        )
        assert row["rewards"] == rewards
        assert row["num_attempts"] == 10
        assert row["num_solved"] == solved
        for k, value in zip(row["pass_at_ks"], row["pass_at"], strict=True):
            subsets = list(itertools.combinations(range(10), k))  # the definition: all ways to draw k of 10
            hits = sum(any(i < solved for i in subset) for subset in subsets)
            assert value == pytest.approx(hits / len(subsets), abs=1e-12)
        assert row["pass_at_1"] == solved / 10
        assert row["pass_at_ks"] == [1, 2, 4, 8, 10]
        assert row["gap"] == row["pass_at"][-1] - row["pass_at_1"]
        mean = math.fsum(rewards) / 10
        assert row["mean_reward"] == mean
        assert row["reward_variance"] == math.fsum((r - mean) ** 2 for r in rewards) / 10


def test_the_stored_rewards_are_those_of_reward_score(finished):
    from reward import score
    from utils.sample import parse_spec

    for line in generations_of(finished)[:12]:
        sample = line["sample"]
        for attempt in line["attempts"][:3]:
            output = score(
                attempt["text"],
                sample["answer"],
                sample["answer_type"],
                problem_type=sample["problem_type"],
                prompt_type=sample["prompt_type"],
                spec=parse_spec(sample["spec"]),
                num_tokens=attempt["num_tokens"],
            )
            assert output.total == attempt["reward"]
            assert output.status == attempt["status"]


def test_selection_follows_the_rules_and_changes_the_means_as_they_say(finished):
    manifest, rows = manifest_of(finished), shard_rows(finished)
    assert all(row["gap"] > 0 and 0 < row["mean_reward"] < 0.7 for row in rows)
    for line in generations_of(finished):
        if line["outcome"] == "dropped":
            solved = sum(attempt["parts"]["accuracy"] >= 1 for attempt in line["attempts"])
            mean = sum(attempt["reward"] for attempt in line["attempts"]) / 10
            bbox = line["sample"]["answer_type"] == "bbox"
            assert (
                bbox
                or {"unsolved": solved == 0, "always-solved": solved == 10, "reward-too-high": mean >= 0.7}[
                    line["reason"]
                ]
            )
    assert manifest["kept"]["mean_gap"] > manifest["raw"]["mean_gap"]
    assert manifest["kept"]["pass_at"]["10"] == 1.0 > manifest["raw"]["pass_at"]["10"]


def test_the_manifest_counts_add_up_and_name_the_files(finished):
    manifest, lines = manifest_of(finished), generations_of(finished)
    counts = manifest["counts"]
    outcomes = collections.Counter(line["outcome"] for line in lines)
    assert counts["examined"] == len(lines) == 60
    assert manifest["complete"]
    assert (counts["kept"], counts["dropped"]) == (outcomes["kept"], outcomes["dropped"])
    assert counts["examined"] == counts["kept"] + counts["dropped"] + counts["rejected"]
    assert sum(shard["rows"] for shard in manifest["shards"]) == counts["kept"] == len(shard_rows(finished))
    assert len(manifest["shards"]) == math.ceil(counts["kept"] / 16) > 1
    hashes = contents(finished)
    assert all(hashes[shard["file"]] == shard["sha256"] for shard in manifest["shards"])
    assert sum(group["kept"] for group in manifest["by_source"].values()) == counts["kept"]
    assert (
        dict(manifest["sweep"]["max_reward"])["off"]
        >= counts["kept"]
        == dict(manifest["sweep"]["max_reward"])[0.7]
    )


def test_the_report_is_one_file_with_the_numbers_of_the_manifest(finished):
    page = (finished / "curation" / "digits" / "report.html").read_text()
    counts = manifest_of(finished)["counts"]
    for name in ("examined", "measured", "kept", "dropped", "rejected"):
        assert f"<b>{counts[name]}</b><span>{name}</span>" in page
    for reason, number in counts["dropped_by_reason"].items():
        assert f"<td>{reason}</td><td class=n>{number}</td>" in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert 'src="data:image/png;base64,' in page


def test_shards_are_loadable_training_data(finished):
    ids = [row["id"] for row in shard_rows(finished)]
    assert len(set(ids)) == len(ids)
    order = {line["sample"]["id"]: line["position"] for line in generations_of(finished)}
    assert [order[i] for i in ids] == sorted(order[i] for i in ids)
    rule = json.loads(shard_rows(finished)[0]["reward_rule"])
    assert rule["verifier"]
    assert rule["weights"]["accuracy"] > 0


def test_other_thresholds_need_no_new_generations(finished, checkpoint, engine, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    command = digits_command(checkpoint, "127.0.0.1:1", copy, "--to-parquet-only", "--max-reward", "0.3")
    assert main(command) == 0
    rows = shard_rows(copy)
    assert 0 < len(rows) < len(shard_rows(finished))
    assert all(row["mean_reward"] < 0.3 for row in rows)
    assert manifest_of(copy)["throughput"]["generations"] == 0
    written = {shard["file"] for shard in manifest_of(copy)["shards"]}
    assert {path.name for path in copy.glob("*.parquet")} == written  # no shard of the larger result is left


def test_dataset_size_counts_kept_samples_whatever_the_order_of_completion(checkpoint, engine, tmp_path):
    results = []
    for concurrency in ("1", "16"):
        output = tmp_path / concurrency
        command = digits_command(
            checkpoint, engine, output, "--dataset-size", "7", "--concurrency", concurrency
        )
        assert main(command) == 0
        results.append(contents(output))
        assert manifest_of(output)["counts"]["kept"] == 7
    assert results[0] == results[1]


def test_grouped_sampling_stores_all_attempts(checkpoint, engine, tmp_path):
    command = digits_command(checkpoint, engine, tmp_path, "--sampling", "grouped", "--max-samples", "6")
    assert main(command) == 0
    assert [len(line["attempts"]) for line in generations_of(tmp_path)] == [10] * 6
    assert manifest_of(tmp_path)["measurement"]["sampling"] == "grouped"


def test_on_a_cpu_one_server_is_started_in_this_process(monkeypatch):
    from dataset.curate.run import resolve_auto

    monkeypatch.setattr("dataset.curate.run._num_gpus", lambda: 0)
    words = ["--model-name", "m", "--dataset-name", "unisvg", "--num-workers", "8", "--output-dir", "o"]
    cpu = resolve_auto(settings_from(make_parser("").parse_args(words), words))
    assert (cpu.device, cpu.num_workers, cpu.executor, cpu.sampling) == ("cpu", 1, "local", "seeded")
    monkeypatch.setattr("dataset.curate.run._num_gpus", lambda: 8)
    gpu = resolve_auto(settings_from(make_parser("").parse_args(words), words))
    assert (gpu.device, gpu.num_workers, gpu.executor, gpu.sampling) == ("cuda", 8, "ray", "grouped")


def test_list_shows_every_source_with_split_type_and_licence(capsys):
    from dataset.sources import SOURCES

    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for source in SOURCES.values():
        line = next(line for line in text.splitlines() if line.startswith(source.name + " "))
        assert source.split in line
        assert source.answer_type in line
        assert source.licence in line


@pytest.mark.long
def test_ray_actors_give_the_same_result(finished, checkpoint, engine, tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "ray"
    command = digits_command(
        checkpoint, f"{engine},{engine}", output, "--executor", "ray", "--shard-size", "16"
    )
    result = subprocess.run(
        [sys.executable, "-m", "dataset.create", *command, "--max-reward", "0.7"],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert contents(output) == contents(finished)
