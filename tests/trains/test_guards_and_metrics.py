"""Guards, per-step metrics, parity, and the seam between AReaL's alignment and the recipe's."""

import json
import pickle
from types import SimpleNamespace

import pytest
import torch

from llavaonevision1_5.freezing import part_of_model
from reward import RewardOutput
from reward.counters import RewardCounters
from trains.advantages import previous
from trains.guards import DivergedError, ParityError, SkipCounter, check_parity
from trains.host.batches import PIXELS, model_inputs
from trains.metrics import _facts, _means, _signs_of_hacking, flat, update_metrics
from trains.parity import difference, probe
from trains.types import GroupInfo
from utils import metric_names


def group(versions=((-1, -1, 3, 2), (-1, -1, 2, -1)), rewards=(1.0, 0.0)):
    """Two rollouts, a prompt of two tokens, answers of two and one."""
    loss_mask = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]], dtype=torch.int32)
    result = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [5, 6, 9, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool(),
        "loss_mask": loss_mask,
        "logprobs": torch.tensor([[0.0, 0.0, -1.0, -2.0], [0.0, 0.0, -3.0, 0.0]]),
        "versions": torch.tensor(versions, dtype=torch.int32),
        "rewards": torch.tensor(rewards),
        "images": [{"pixel_values": torch.ones(16, 588), "image_grid_thw": torch.tensor([[1, 4, 4]])}],
        "info": [
            GroupInfo(
                0, "id", "digits-number", "number", "answer", ["7"],
                [
                    RewardOutput(rewards[0], {"accuracy": 1.0}, "ok", "7"),
                    RewardOutput(rewards[1], {"accuracy": 0.0}, "no_answer", None),
                ],
                ["<answer>7</answer>", "text"], [False, True], [2, 1], 1,
            )
        ],
    }  # fmt: skip
    result["policy_mask"] = previous(loss_mask)
    result["behavior_logprobs"] = previous(result["logprobs"])
    result["policy_versions"] = previous(result["versions"])
    result["proximal_logprobs"] = result["behavior_logprobs"] + 0.25 * result["policy_mask"]
    return result


def test_the_seam_moves_a_token_to_the_position_that_predicts_it():
    assert previous(torch.tensor([[0, 0, 1, 1]])).tolist() == [[0, 1, 1, 0]]
    assert previous(torch.tensor([[1, 2, 3, 4]])).tolist() == [[2, 3, 4, 0]], "nothing wraps around"


def test_images_are_shared_by_reference():
    inputs = model_inputs(group())
    first, second = inputs[PIXELS]
    assert first["pixel_values"] is second["pixel_values"]
    text_only = group() | {
        "images": [{"pixel_values": torch.zeros(0, 588), "image_grid_thw": torch.zeros(0, 3)}]
    }
    assert model_inputs(text_only)["multi_modal_input"] == [{}, {}]
    assert model_inputs(text_only)[PIXELS] == [{}, {}]


def test_gaps_count_generated_tokens_alone():
    facts = _facts(group(), version=4)
    assert facts["gaps"] == {1: 1, 2: 2}
    assert facts["num_sequence_tokens"] == 7
    assert facts["has_signal"]
    assert not _facts(group(rewards=(0.5, 0.5)), version=4)["has_signal"]


def test_parity_looks_at_fresh_and_probed_tokens():
    assert difference(group(), version=9).numel() == 0
    assert difference(group(), version=3).tolist() == [0.25]  # the one token drawn from version 3
    probed = group() | {"server_gap": torch.tensor([0.0, 0.5])}
    assert difference(probed, version=9).tolist() == [0.0, 0.5]
    assert difference(probed, version=3).tolist() == [0.25, 0.0, 0.5]


class FakeActor:
    """Counts what it is asked; the whole-vocabulary log-probability of token t + 1 is -t."""

    def __init__(self):
        self.asked = 0

    def compute_full_logp(self, rows):
        self.asked += 1
        longest = int(rows["attention_mask"].sum(-1).max())  # AReaL's engine returns no more than that
        return -torch.arange(longest).float().expand(len(rows["input_ids"]), -1)


def answer_of(server_logprobs):
    return {"meta_info": {"input_token_logprobs": [[None, 6], *([value, 0] for value in server_logprobs)]}}


def test_the_probe_compares_answers_alone_and_survives_a_silent_server(monkeypatch):
    actor, rollout = FakeActor(), SimpleNamespace(server_url="http://127.0.0.1:1")
    probed, other = group(), group()
    probed["info"][0].image_data = ["png"]
    for key in ("input_ids", "attention_mask", "loss_mask"):  # a third rollout of the group is longer
        probed[key] = torch.nn.functional.pad(probed[key], (0, 2))
    sent = []

    def post(url, json, timeout):
        sent.append(json)
        answers = [answer_of([-1.0, -2.5]), answer_of([-1.5])]  # answers of two tokens and of one
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: answers)

    monkeypatch.setattr("trains.parity.requests.post", post)
    probe(actor, rollout, [other, probed], temperature=1.0).finish()
    assert probed["server_gap"].tolist() == [0.0, 0.5, 0.5]
    assert "server_gap" not in other
    assert sent[0]["input_ids"] == [[5, 6, 7, 8], [5, 6, 9]]
    assert sent[0]["logprob_start_len"] == 1
    probe(actor, rollout, [other], temperature=1.0).finish()
    assert (actor.asked, len(sent)) == (2, 1), (
        "the forward pass is a collective: ranks without a probed group join in"
    )
    probe(actor, rollout, [probed], temperature=0.7).finish()
    assert (actor.asked, len(sent)) == (2, 1)

    monkeypatch.undo()
    silent = group()
    silent["info"][0].image_data = []
    probe(actor, rollout, [silent], temperature=1.0).finish()
    assert "server_gap" not in silent


def test_means_and_shares():
    facts = _facts(group(), version=4)
    means = _means(facts["rollouts"])
    assert (means["reward"], means["solved"], means["truncated"]) == (0.5, 0.5, 0.5)
    assert means["statuses"] == {"ok": 0.5, "no_answer": 0.5}
    assert (means["length_mean"], means["length_max"]) == (1.5, 2)


def test_signs_of_hacking_do_not_depend_on_how_groups_lie_on_ranks():
    first, second = (
        _facts(group(), version=4)["counters"],
        _facts(group(rewards=(1.0, 1.0)), version=4)["counters"],
    )
    signs = _signs_of_hacking(pickle.loads(pickle.dumps([first, second, RewardCounters()])))
    assert signs == _signs_of_hacking([second, first])
    assert signs == {"no_answer_reward": 0.5, "several_answers": 0.0, "constant_answer/number": 1.0}
    assert all(metric_names.describe(f"hacking/{name}") for name in signs)


def test_update_statistics_get_the_recipes_names_and_an_effective_sample_size():
    stats = {
        "update/ratio/avg": 1.0, "update/ratio/max": 1.2, "update/behavior_weight/avg": 2.0,
        "update/behavior_weight/max": 5.0, "update/behavior_weight_squared/avg": 8.0, "update/entropy/avg": 0.3,
        "rollout/other/avg": 1.0,
    }  # fmt: skip
    metrics = update_metrics(stats)
    assert metrics["effective_sample_size"] == 0.5  # mean(w)^2 / mean(w^2) = 4 / 8
    assert (metrics["ratio_mean"], metrics["ratio_max"], metrics["entropy"]) == (1.0, 1.2, 0.3)
    assert all(metric_names.describe(name) for name in metrics)


def test_every_number_of_a_real_record_is_explained(tmp_path):
    facts = _facts(group(), version=4)
    record = {"by_source": {"digits-number": _means(facts["rollouts"])}, **_means(facts["rollouts"])}
    record["gradient_norms"] = {"vision_block_00": 1.0}
    record["buffer"] = {"submitted": 3, "consumed": 2, "ready": 0}
    unknown = [name for name in flat(record) if metric_names.describe(name) is None]
    assert not unknown
    json.dumps(record)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("visual.blocks.3.attn.qkv.weight", "vision_block_03"),
        ("visual.merger.mlp.0.weight", "projector"),
        ("visual.patch_embed.proj.weight", "vision_embedding"),
        ("model.visual.blocks.11.norm1.weight", "vision_block_11"),  # Qwen2.5-VL
        ("base_model.model.visual.blocks.2.mlp.fc1.lora_A.default.weight", "vision_block_02"),
        ("model.visual.deepstack_merger_list.0.norm.weight", "projector"),  # Qwen3-VL
        ("model.layers.3.mlp.up_proj.weight", "language_model"),
        ("lm_head.weight", "language_model"),
    ],
)
def test_parts_of_the_model(name, part):
    assert part_of_model(name) == part


def test_parity_guard_names_the_causes_and_depends_on_the_dtype():
    record = {"parity_tokens": 10, "parity_mean": 0.02, "parity_max": 0.5}
    check_parity(record, "bfloat16")
    check_parity(record, "float32", threshold=0.1)
    check_parity({**record, "parity_tokens": 0}, "float32")
    with pytest.raises(ParityError, match=r"disagree by 0\.02 .* temperature .* actor\.parity_threshold"):
        check_parity(record, "float32")


def test_skipped_steps_stop_the_run_only_in_a_row():
    counter = SkipCounter(limit=2)
    for skipped in (1, 1, 0, 1, 1):
        counter.update(skipped)
    with pytest.raises(DivergedError, match="3 steps in a row"):
        counter.update(1)
