"""From the rewards of a batch to the advantages of its tokens, as `VisionActor` puts the pieces together."""

import pytest
import torch

from reward import RewardOutput
from trains.actor import VisionActor
from trains.config import LossConfig
from trains.types import GroupInfo
from utils.advantages import group_advantages, shuffled

REWARDS = ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.5, 0.5, 0.5))  # the last group has no signal
LENGTHS = ((1, 2, 3), (4, 1, 2), (3, 1, 4))
NUM_PROMPT = 2


def batch():
    """Three groups of three rollouts; answers follow a prompt of two tokens."""
    groups = []
    for rewards, lengths in zip(REWARDS, LENGTHS, strict=True):
        place = torch.arange(NUM_PROMPT + max(lengths)).expand(3, -1)
        mask = (place >= NUM_PROMPT) & (place < NUM_PROMPT + torch.tensor(lengths)[:, None])
        groups.append(
            {
                "rewards": torch.tensor(rewards),
                "loss_mask": mask.int(),
                "logprobs": -place.float() / 10,  # not 0 outside of the answer
                "versions": torch.where(mask, place, -1).int(),
            }
        )
    return groups


def advantages_of(other=(0.0, 0.0, 0.0), prepare=None, *, version=0, **options):
    """One advantage per rollout, `[9]`, and the batch; every token of a rollout has the same."""
    actor = VisionActor.__new__(VisionActor)
    actor.get_version = lambda: version
    actor.loss, summed = LossConfig(**options), []
    actor.sum_over_ranks = lambda values: summed.append(values) or values + torch.tensor(other).to(values)
    groups = batch()
    for group in groups:
        group.update(prepare(group) if prepare else {})
    actor.compute_advantages(groups)
    values = []
    for group, lengths in zip(groups, LENGTHS, strict=True):
        for row, mask, length in zip(group["advantages"], group["policy_mask"], lengths, strict=True):
            assert torch.equal(row, row[NUM_PROMPT - 1] * mask), "on the tokens trained on, 0 elsewhere"
            assert mask.nonzero().flatten().tolist() == list(range(NUM_PROMPT - 1, NUM_PROMPT - 1 + length))
            values.append(float(row[NUM_PROMPT - 1]))
    return torch.tensor(values, dtype=torch.float64), groups, summed


R = torch.tensor(REWARDS, dtype=torch.float64) * 10 - 5  # (r - 0.5) * 10
SIGNAL = torch.tensor([[True], [True], [False]])
CENTERED = R - R.mean(1, keepdim=True)


def whitened(values, weights, other=(0.0, 0.0, 0.0), groups=2):
    """Over the two groups with signal, each rollout weighing `weights`, and what another rank adds to the sums."""
    a, w = values[:groups].flatten(), torch.as_tensor(weights, dtype=torch.float64)[:groups].flatten()
    total, first, second = (w.sum() + other[0], (w * a).sum() + other[1], (w * a * a).sum() + other[2])
    mean = first / total
    return torch.cat([(a - mean) / (second / total - mean**2).sqrt(), torch.zeros(9 - 3 * groups)])


def opo():
    lengths = torch.tensor(LENGTHS, dtype=torch.float64)
    return R - (lengths * R).sum(1, keepdim=True) / lengths.sum(1, keepdim=True)


GRPO = torch.where(SIGNAL, CENTERED / R.std(1, unbiased=False, keepdim=True).clamp(min=1e-9), 0.0)
SAMPLE = torch.where(SIGNAL, CENTERED / R.std(1, keepdim=True).clamp(min=1e-9), 0.0)
WANTED = {
    ("grpo", False): GRPO.flatten(),
    ("grpo", True): whitened(GRPO, LENGTHS),
    ("dr_grpo", False): CENTERED.flatten(),
    ("rloo", False): 1.5 * CENTERED.flatten(),
    ("opo", False): torch.where(SIGNAL, opo(), 0.0).flatten(),
    ("reinforce++", False): whitened(R, LENGTHS, groups=3),
    ("reinforce++-baseline", False): whitened(CENTERED, LENGTHS, groups=3),
}


@pytest.mark.parametrize(("estimator", "batch_whiten"), WANTED)
def test_the_options_of_the_configuration_decide(estimator, batch_whiten):
    values, _, _ = advantages_of(estimator=estimator, batch_whiten=batch_whiten)
    assert torch.allclose(values, WANTED[estimator, batch_whiten], atol=1e-5)


def test_std_and_shaping_are_the_configurations():
    assert torch.allclose(advantages_of(std="sample", batch_whiten=False)[0], SAMPLE.flatten(), atol=1e-5)
    shaped, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False, reward_scaling=3.0)
    assert torch.allclose(shaped, 0.3 * CENTERED.flatten(), atol=1e-5)
    # A bias changes no advantage, but what is summed over the ranks: 21 tokens of (r + 7) * 10.
    _, _, [moments] = advantages_of(estimator="reinforce++", batch_whiten=False, reward_bias=7.0)
    assert moments.tolist()[:2] == [21.0, 10 * (7 * 21 + 1 + 4 + 1 + 0.5 * 8)]


OTHER = (7.0, 20.0, 300.0)  # of another rank: sum of weights, of w a, of w a^2
STATISTICS = {
    ("grpo", True): whitened(GRPO, LENGTHS, OTHER),
    ("reinforce++", False): whitened(R, LENGTHS, OTHER, groups=3),
    ("reinforce++-baseline", False): whitened(CENTERED, LENGTHS, OTHER, groups=3),
}


@pytest.mark.parametrize(("estimator", "batch_whiten"), STATISTICS)
def test_statistics_of_the_batch_are_those_of_all_ranks(estimator, batch_whiten):
    values, _, summed = advantages_of(OTHER, estimator=estimator, batch_whiten=batch_whiten)
    assert torch.allclose(values, STATISTICS[estimator, batch_whiten], atol=1e-5)
    assert [float(moments[0]) for moments in summed] == [13.0 if batch_whiten else 21.0]


def test_groups_without_signal_as_in_the_release():
    """All nine rollouts count, the last three with 0; (a - mean) / std over their tokens, -mean / std for the last."""
    values, _, [moments] = advantages_of(without_signal="batch_mean")
    weights = torch.tensor(LENGTHS, dtype=torch.float64).flatten()
    a = GRPO.flatten()
    mean = (weights * a).sum() / weights.sum()
    std = ((weights * (a - mean) ** 2).sum() / weights.sum()).sqrt()
    assert torch.allclose(values, (a - mean) / std, atol=1e-5)
    assert torch.allclose(values[6:], (-mean / std).expand(3), atol=1e-5)
    assert values[6:].abs().min() > 0.01
    assert moments[0] == weights.sum()


def test_statistics_that_nobody_needs_are_not_exchanged():
    assert advantages_of(estimator="rloo", batch_whiten=False)[2] == []


def test_the_seam_moves_every_key_and_blanks_what_is_no_answer():
    _, (group, *_), _ = advantages_of()
    assert group["policy_mask"].tolist() == [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
    assert torch.allclose(group["behavior_logprobs"][2], torch.tensor([0.0, -0.2, -0.3, -0.4, 0.0]))
    assert group["policy_versions"][1].tolist() == [-1, 2, 3, -1, 0]


def test_a_control_learns_from_the_same_rewards_dealt_out_at_random():
    """The records keep what was earned; the advantages come from another order, each step anew, the same again."""
    plain, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False)
    orders = []
    for version in range(4):
        values, groups, _ = advantages_of(
            estimator="dr_grpo", batch_whiten=False, shuffle_rewards=True, version=version
        )
        assert [group["rewards"].tolist() for group in groups] == [list(rewards) for rewards in REWARDS]
        assert not torch.allclose(values, plain)
        assert abs(float(values.sum())) < 1e-6
        orders.append(values.tolist())
    assert len(set(map(tuple, orders))) == 4
    again, _, _ = advantages_of(estimator="dr_grpo", batch_whiten=False, shuffle_rewards=True, version=3)
    assert again.tolist() == orders[3]


def test_shuffling_keeps_every_reward():
    rewards = torch.arange(64.0)
    dealt = shuffled(rewards, 5)
    assert sorted(dealt.tolist()) == rewards.tolist()
    assert (dealt != rewards).sum() > 32


def info(parts, truncated=(False, False, False), statuses=("ok", "ok", "ok")):
    scores = [
        RewardOutput(sum(p.values()), dict(p), status, None, ())
        for p, status in zip(parts, statuses, strict=True)
    ]
    return GroupInfo(0, "id", "s", "number", "answer", ["1"], scores, [""] * 3, list(truncated), [1] * 3, 0)


def with_scores(group):
    """Accuracy as the reward has it (1 or less); every answer but the last is well-formed; `iou` is not paid for."""
    rewards = group["rewards"].tolist()
    parts = [{"accuracy": r, "format": float(i < 2), "iou": i / 7} for i, r in enumerate(rewards)]
    return {"info": [info(parts)]}


def test_passk_reads_accuracy():
    values, _, _ = advantages_of(prepare=with_scores, estimator="passk", passk_k=2, batch_whiten=False)
    right = torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 0, 0], dtype=torch.float64)
    assert torch.allclose(values, group_advantages(right, 3, "passk", passk_k=2), atol=1e-6)
    assert values[0] > 0 > values[1]


def test_gdpo_adds_up_the_parts_that_are_paid_for():
    """Of each group's parts accuracy and format; what no judge has judged has the mean of the others."""
    values, _, _ = advantages_of(prepare=with_scores, estimator="gdpo", batch_whiten=False)
    well_formed = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64).expand(3, 3).flatten()
    parts = torch.stack([torch.tensor(REWARDS, dtype=torch.float64).flatten(), well_formed], dim=-1)
    wanted = group_advantages(parts.sum(1), 3, "gdpo", parts=parts)
    assert torch.allclose(values, wanted, atol=1e-5)
    assert values[6:].abs().min() > 0.1, "equal rewards, and a difference in form"

    def unjudged(group):
        parts = [{"accuracy": a} for a in (1.0, 0.0, 0.0)]
        return {"info": [info(parts, statuses=("ok", "ok", "judge_error"))]}

    assert torch.allclose(
        advantages_of(prepare=unjudged, estimator="gdpo", batch_whiten=False)[0],
        group_advantages(torch.tensor([1.0, 0.0, 0.5] * 3), 3).double(), atol=1e-5,
    )  # fmt: skip


def test_truncated_answers_are_left_out_of_the_loss_and_stay_in_their_group():
    def prepare(group):
        return {"info": [info([{"accuracy": 1.0}] * 3, truncated=(False, True, False))]}

    actor = VisionActor.__new__(VisionActor)
    actor.loss = LossConfig(overlong_filter=True)
    actor.sum_over_ranks = lambda values: values
    groups = batch()
    for group in groups:
        group.update(prepare(group))
    actor.compute_advantages(groups)
    for group in groups:
        assert group["policy_mask"].sum(-1).tolist()[1] == 0
        assert group["advantages"][1].abs().sum() == group["behavior_logprobs"][1].abs().sum() == 0
    a = GRPO.flatten()
    w = torch.tensor(LENGTHS, dtype=torch.float64).clone()
    w[:, 1] = 0
    wanted = whitened(GRPO, w.tolist())
    found = torch.stack([group["advantages"][i, NUM_PROMPT - 1] for group in groups for i in range(3)])
    kept = (w.flatten() > 0) & (a != 0)
    assert torch.allclose(found[kept], wanted[kept].float(), atol=1e-5)


def test_the_token_baseline_reads_energies():
    actor = VisionActor.__new__(VisionActor)
    actor.loss = LossConfig(estimator="otb", batch_whiten=False)
    groups = batch()
    for group in groups:
        group["energies"] = torch.ones(group["loss_mask"].shape)
    actor.compute_advantages(groups)
    # equal energies: the mean of the answers that are as long; rewards 5, -5, -5 of lengths 1, 2, 3
    assert torch.allclose(groups[0]["advantages"][0, 1:2], torch.tensor([5 + 5 / 3]))
    assert groups[0]["advantages"][1].tolist()[2] == 0.0, "-5 against -5 and itself"
    assert groups[2]["advantages"].abs().sum() == 0
