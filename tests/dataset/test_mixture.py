from collections import Counter

import numpy as np
import pytest

from dataset.mixture import MixturePart, MixtureSampler, as_mixture, exact_counts, schedule


def test_exact_counts_by_hand():
    assert exact_counts([1, 1, 1], 10).tolist() == [4, 3, 3]
    assert exact_counts([0.9, 0.1], 50).tolist() == [45, 5]
    assert exact_counts([0.25, 0.75], 3).tolist() == [1, 2]


@pytest.mark.parametrize("weights", [[0.9, 0.1], [1, 2, 3], [0.501, 0.3, 0.199]])
def test_shares_are_exact_overall_and_within_a_row_or_two_along_the_way(weights):
    order = schedule(weights, 1000)
    shares = np.asarray(weights) / np.sum(weights)
    for source, share in enumerate(shares):
        drawn = np.cumsum(order == source)
        assert abs(drawn[-1] - 1000 * share) < 1
        assert np.abs(drawn - share * np.arange(1, 1001)).max() < 2


def rows_of(sampler):
    return list(sampler)


def test_one_source_is_a_permutation_per_epoch():
    sampler = MixtureSampler([50], seed=3)
    first, second = rows_of(sampler), rows_of(sampler)
    assert sorted(first) == sorted(second) == [(0, row) for row in range(50)]
    assert first != second
    assert first == rows_of(MixtureSampler([50], seed=3))
    assert first != rows_of(MixtureSampler([50], seed=4))


def test_unshuffled_order_is_the_files_order():
    assert rows_of(MixtureSampler([4], shuffle=False)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_ranks_are_disjoint_and_their_union_is_the_epoch():
    whole = rows_of(MixtureSampler([101, 30], [0.8, 0.2], seed=1))
    parts = [rows_of(MixtureSampler([101, 30], [0.8, 0.2], seed=1, rank=r, world_size=3)) for r in range(3)]
    assert [len(part) for part in parts] == [
        len(MixtureSampler([101, 30], [0.8, 0.2], rank=r, world_size=3)) for r in range(3)
    ]
    assert Counter(row for part in parts for row in part) == Counter(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts[1] == whole[1::3]


def test_epoch_is_a_pass_over_the_first_source_and_others_go_on_where_they_stopped():
    # 40 main rows at 80 % make 50 draws: 10 of the second source's 25 rows, which lasts for two and a half epochs.
    sampler = MixtureSampler([40, 25], [0.8, 0.2], seed=1)
    epochs = [rows_of(sampler) for _ in range(5)]
    for epoch in epochs:
        assert len(epoch) == 50
        assert sorted(row for source, row in epoch if source == 0) == list(range(40))
    rehearsed = [row for epoch in epochs for source, row in epoch if source == 1]
    assert sorted(rehearsed[:25]) == sorted(rehearsed[25:]) == list(range(25))


@pytest.mark.parametrize("stop", [0, 1, 17, 50])
def test_state_resumes_with_exactly_the_next_row(stop):
    original = MixtureSampler([40, 25], [0.8, 0.2], seed=1)
    rows_of(original)  # the second epoch is the interrupted one
    iterator = iter(original)
    for _ in range(stop):
        next(iterator)
    state = iterator.state_dict()
    rest = list(iterator) + rows_of(original)
    resumed = MixtureSampler([40, 25], [0.8, 0.2], seed=1)
    iterator = iter(resumed)
    iterator.load_state_dict(state)
    assert list(iterator) + rows_of(resumed) == rest


def test_resuming_on_other_data_is_refused():
    state = iter(MixtureSampler([40])).state_dict()
    with pytest.raises(ValueError, match="epoch_rows was 40 and is now 41"):
        iter(MixtureSampler([41])).load_state_dict(state)


def test_forms_of_a_mixture():
    assert as_mixture("a") == (MixturePart("a"),)
    assert as_mixture(["a", "b"]) == (MixturePart(("a", "b")),)
    assert as_mixture([{"path": "a", "weight": 0.9}, {"path": ["b", "c"], "weight": 0.1}]) == (
        MixturePart("a", 0.9),
        MixturePart(("b", "c"), 0.1),
    )


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"path": "a", "weight": 0}],
        [{"path": "a", "weight": float("nan")}],
        [{"paths": "a"}],
        [{"weight": 1}],
    ],
)
def test_bad_mixtures_are_refused(data):
    with pytest.raises(ValueError, match="mixture"):
        as_mixture(data)


@pytest.mark.parametrize(
    ("num_rows", "options", "message"),
    [
        ([], {}, "got 0 sources and 0 weights"),
        ([5, 5], {"weights": [1.0]}, "got 2 sources and 1 weights"),
        ([5, 0], {}, r"every source needs rows, got \[5, 0\]"),
        ([5], {"rank": 2, "world_size": 2}, "rank: got 2, wanted 0 to 1"),
        ([5], {"rank": -1, "world_size": 2}, "rank: got -1"),
    ],
)
def test_a_sampler_that_cannot_be_is_refused(num_rows, options, message):
    with pytest.raises(ValueError, match=message):
        MixtureSampler(num_rows, **options)


def test_shares_need_not_add_up_to_one():
    """Weights 2 and 6: 3 rows of the first source are a quarter of 12 draws."""
    assert Counter(source for source, _ in MixtureSampler([3, 1], [2.0, 6.0])) == {0: 3, 1: 9}
    assert len(MixtureSampler([1, 5], [1, 1e-9])) == 1, "a source may be drawn not at all"


def test_the_first_draws_of_an_epoch_are_spread_like_the_others():
    """One draw of four: 1/2 of the epoch; the others at 1/6, 1/2 and 5/6. Two halves alternate."""
    assert schedule([3, 1], 4).tolist() == [0, 0, 1, 0]
    assert schedule([1, 1], 6).tolist() == [0, 1] * 3
    assert exact_counts([1, 1, 1, 1], 6).tolist() == [2, 2, 1, 1], "ties go to the first"
    assert exact_counts([0.1 + 0.2, 0.7], 10).tolist() == [3, 7]


def test_weights_are_one_where_none_is_given():
    assert as_mixture([{"path": "a"}, MixturePart("b")]) == (MixturePart("a", 1.0), MixturePart("b", 1.0))
    assert len(MixtureSampler([4, 9])) == 8
