"""Attention of the CPU server against a computation of one request at a time, without cache and sharing."""

from types import SimpleNamespace

import pytest
import torch

from sglang_cpu import attention

HEADS, KV_HEADS, SIZE = 4, 2, 8


class Cache:
    """Requests whose tokens have places in a shuffled cache, those of a shared prefix the same ones."""

    def __init__(self, lengths, prefixes=(), seed=0):
        """`prefixes` are (requests, number of tokens they share); later ones lie inside of earlier ones."""
        self.generator = torch.Generator().manual_seed(seed)
        self.lengths = torch.tensor(lengths)
        free = iter((1 + torch.randperm(4000, generator=self.generator)).tolist())
        self.table = torch.zeros(len(lengths) + 3, 700, dtype=torch.int32)
        self.requests = torch.randperm(len(self.table), generator=self.generator)[: len(lengths)]
        for request in self.requests:
            self.table[request] = torch.randint(0, 4001, (700,), generator=self.generator)  # left by others
        for index, length in enumerate(lengths):
            self.table[self.requests[index], :length] = torch.tensor([next(free) for _ in range(length)])
        for rows, count in prefixes:
            for row in rows[1:]:
                self.table[self.requests[row], :count] = self.table[self.requests[rows[0]], :count]
        self.keys, self.values = (self.random(4001, KV_HEADS, SIZE) for _ in range(2))
        self.keys[0] = self.values[0] = 1e30  # SGLang's place for padding belongs to no request

    def random(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def places(self):
        return self.table[self.requests, : int(self.lengths.max())]

    def attend(self, index, queries):
        """Of the last `len(queries)` tokens of a request."""
        length = int(self.lengths[index])
        own = self.table[self.requests[index], :length].long()
        keys, values = (
            cache[own].repeat_interleave(HEADS // KV_HEADS, 1) for cache in (self.keys, self.values)
        )
        scores = torch.einsum("qhd,khd->hqk", queries, keys) / SIZE**0.5
        seen = torch.ones(length, length, dtype=torch.bool).tril()[-len(queries) :]
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), values)


CASES = {
    "one alone": Cache([5]),
    "unequal, nothing shared": Cache([3, 90, 1, 61]),
    "a group": Cache([330, 341, 335, 331], [((0, 1, 2, 3), 329)]),
    "a group of which one is at its first token": Cache([100, 130, 101], [((0, 1, 2), 100 - 1)]),
    "two groups behind a common head": Cache(
        [400, 90, 410, 95, 402], [((0, 1, 2, 3, 4), 40), ((0, 2, 4), 390), ((1, 3), 80)]
    ),
    "one that shares the head alone": Cache([200, 210, 50], [((0, 1, 2), 33), ((0, 1), 199)]),
    "less than a look": Cache([60, 70], [((0, 1), 20)]),
}


@pytest.mark.parametrize("places_of_a_call", [attention.DECODE_PLACES, 60])
@pytest.mark.parametrize("case", CASES)
def test_decoding_equals_one_by_one(case, places_of_a_call, monkeypatch):
    monkeypatch.setattr(attention, "DECODE_PLACES", places_of_a_call)
    cache = CASES[case]
    query = cache.random(len(cache.lengths), HEADS, SIZE)
    output = attention.decode(
        SimpleNamespace(forward_metadata=None), query, torch.empty_like(query), cache.keys, cache.values, cache.table,
        cache.requests, cache.lengths, enable_gqa=True,
    )  # fmt: skip
    for index in range(len(query)):
        torch.testing.assert_close(output[index], cache.attend(index, query[index : index + 1])[0])


@pytest.mark.parametrize("news", [[7, 3, 1], [1, 1, 1], [330, 341, 2]])
def test_prefill_equals_one_by_one(news):
    """New tokens behind what is in the cache, a single one for most of a group."""
    cache = Cache([330, 341, 335], [((0, 1, 2), 320)])
    new = torch.tensor(news)
    query = cache.random(sum(news), HEADS, SIZE)
    output = attention.extend(
        SimpleNamespace(forward_metadata=None), query, torch.empty_like(query), cache.keys, cache.values, cache.table,
        cache.requests, cache.lengths, cache.lengths - new, new, enable_gqa=True, causal=True,
    )  # fmt: skip
    expected = [cache.attend(index, part) for index, part in enumerate(query.split(news))]
    torch.testing.assert_close(output, torch.cat(expected))


@pytest.mark.parametrize(
    ("case", "shared"),
    [
        ("one alone", [([0], 0)]),
        ("unequal, nothing shared", [([0, 1, 2, 3], 0)]),
        ("a group", [([0, 1, 2, 3], 329)]),
        ("two groups behind a common head", [([0, 2, 4], 390), ([1, 3], 80)]),
        ("one that shares the head alone", [([0, 1], 199), ([2], 0)]),
        ("less than a look", [([0, 1], 0)]),
    ],
)
def test_what_is_shared(case, shared):
    cache = CASES[case]
    found = attention.sharings(cache.places(), cache.lengths)
    assert sorted((part.rows.tolist(), part.num_shared) for part in found) == sorted(shared)


def test_a_batch_is_looked_at_once_and_the_next_one_anew():
    backend, cache = SimpleNamespace(forward_metadata=None), CASES["a group"]
    query = cache.random(len(cache.lengths), HEADS, SIZE)
    arguments = (
        query,
        torch.empty_like(query),
        cache.keys,
        cache.values,
        cache.table,
        cache.requests,
        cache.lengths,
    )
    attention.decode(backend, *arguments)
    first = backend.forward_metadata
    attention.decode(backend, *arguments)
    assert backend.forward_metadata is first
    attention.init_forward_metadata(backend, None)
    attention.decode(backend, *arguments)
    assert backend.forward_metadata is not first


def test_bfloat16_is_computed_in_float32():
    cache = Cache([330, 341, 335, 331], [((0, 1, 2, 3), 329)])
    keys, values, query = (x.bfloat16() for x in (cache.keys, cache.values, cache.random(4, HEADS, SIZE)))
    cache.keys, cache.values = keys.float(), values.float()
    output = attention.decode(
        SimpleNamespace(forward_metadata=None), query, torch.empty_like(query), keys, values, cache.table,
        cache.requests, cache.lengths,
    )  # fmt: skip
    expected = torch.cat([cache.attend(i, query[i : i + 1].float()) for i in range(4)])
    torch.testing.assert_close(output, expected.bfloat16(), rtol=0, atol=0.004)
