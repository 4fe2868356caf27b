"""The cache of keys and values: longest prefixes, equal tokens stored once, the least recently used ones dropped."""

from collections.abc import Hashable

import pytest
import torch

from llmft.generation.batch import Batch, running
from llmft.generation.prefill import common_prefix, similar
from llmft.generation.prefix_cache import MIB, PrefixCache
from llmft.generation.stream import Stream

TOKEN = 2 * 2 * 4  # two layers, the key and the value of a token, float32


def states(ids, start=0):
    """Two layers with one head of size 1: the keys are the ids, the values their negatives."""
    keys = torch.tensor(ids[start:], dtype=torch.float32)[None, None, :, None]
    return [(keys, -keys), (keys + 0.5, -keys)]


def add(cache, ids, scope: Hashable = "m"):
    read = []
    cache.add(scope, ids, lambda start: read.append(start) or states(ids, start))
    return read


def found(cache, ids, scope: Hashable = "m"):
    length, layers = cache.longest(scope, ids)
    if layers is None:
        assert length == 0
        return []
    for (keys, values), (wanted_keys, wanted_values) in zip(layers, states(ids[:length]), strict=True):
        assert torch.equal(keys, wanted_keys)
        assert torch.equal(values, wanted_values)
    return ids[:length]


def test_the_longest_stored_prefix_is_found_token_by_token():
    cache = PrefixCache(1)
    assert found(cache, [1, 2]) == []
    assert add(cache, [1, 2, 3, 4]) == [0]
    assert found(cache, [1, 2, 3, 4, 5]) == [1, 2, 3, 4]
    assert found(cache, [1, 2, 9]) == [1, 2]
    assert found(cache, [2]) == []
    assert found(cache, []) == []


def test_equal_tokens_are_stored_once():
    cache = PrefixCache(1)
    add(cache, [1, 2, 3, 4])
    assert add(cache, [1, 2, 5]) == [2]  # only the 5 is read
    assert add(cache, [1, 2, 3]) == []
    assert add(cache, [1, 2, 3, 4, 6]) == [4]
    assert cache.bytes == 6 * TOKEN
    for ids in ([1, 2, 3, 4, 6], [1, 2, 5], [1, 2, 3]):
        assert found(cache, ids) == ids


def test_another_model_or_adapter_state_shares_nothing():
    cache = PrefixCache(1)
    add(cache, [1, 2, 3], scope=("model", True))
    assert found(cache, [1, 2, 3], scope=("model", False)) == []


def test_the_least_recently_used_tokens_make_room():
    cache = PrefixCache(6 * TOKEN / MIB)
    add(cache, [1, 2, 3, 4])
    add(cache, [1, 2, 5])
    found(cache, [1, 2, 3, 4])  # used again
    add(cache, [7, 8])  # 7 tokens
    assert cache.bytes == 6 * TOKEN
    assert found(cache, [1, 2, 5]) == [1, 2]
    assert found(cache, [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert found(cache, [7, 8]) == [7, 8]
    add(cache, [9, 10, 11, 12, 13, 14])
    assert found(cache, [1, 2, 3, 4]) == []
    assert cache.bytes == 6 * TOKEN


def test_what_does_not_fit_is_not_stored():
    cache = PrefixCache(2 * TOKEN / MIB)
    add(cache, [1, 2, 3])
    assert (cache.bytes, cache.order) == (0, {})
    add(cache, [1, 2])
    assert found(cache, [1, 2]) == [1, 2]


def held(cache, ids):
    """Bytes of the memory behind the keys and values of the first layer."""
    layers = cache.longest("m", ids)[1]
    assert layers
    return [one.untyped_storage().nbytes() for one in layers[0]]


def test_two_halves_of_stored_tokens_are_dropped_apart():
    cache = PrefixCache(4 * TOKEN / MIB)
    add(cache, [1, 2, 3, 4])
    assert held(cache, [1, 2, 3]) == [16, 16]
    add(cache, [1, 9])
    assert cache.bytes == 2 * TOKEN  # 2, 3, 4 are gone
    assert held(cache, [1]) == [4, 4]


@pytest.mark.parametrize(
    ("prompts", "common"),
    [
        ([[1, 2, 3], [1, 2, 4]], [1, 2]),
        ([[1, 2, 3], [1, 2]], [1]),  # the last token of a prompt is always computed
        ([[1, 2], [1, 2]], [1]),
        ([[2, 1], [1, 2]], []),
        ([[1, 2, 3]], [1, 2]),
    ],
)
def test_common_prefix(prompts, common):
    assert common_prefix(prompts) == common


def test_sequences_are_grouped_where_padding_would_cost_more_than_a_pass():
    assert similar([5, 40, 6, 41], 32) == [[0, 2], [1, 3]]
    assert similar([5, 21, 6, 22], 32) == [[0, 2, 1, 3]]
    assert similar([5, 6, 7, 100, 120], 32) == [[0, 1, 2], [3, 4]]
    assert similar([], 32) == []


def stream(reason=None):
    return Stream([1], 9, None, frozenset(), reason=reason)  # pyright: ignore[reportArgumentType]


class Cache:
    """One layer whose keys are the ids."""

    def __init__(self, ids):
        self.layers = [self]
        self.keys = self.values = ids[:, None, :-1, None].float()


@pytest.mark.parametrize(
    ("mask", "left"),
    [
        # [prefix][padding][rest]: the padding of the row that is left goes
        ([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]], [[10, 11, 13, 14]]),
        ([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], [[11, 12, 13, 14]]),
        ([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], [[10, 11, 12, 13, 14]]),
    ],
)
def test_padding_that_no_sequence_needs_is_removed_where_it_is(mask, left):
    ids = torch.tensor([[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]])
    batch = running(Batch([stream(), stream("stop")], ids, torch.tensor(mask), Cache(ids)))
    assert batch
    assert batch.ids.tolist() == left
    assert batch.mask.tolist() == [[1] * len(left[0])]
    assert batch.cache.layers[0].keys[0, 0, :, 0].tolist() == left[0][:-1]


def test_rows_keep_their_own_padding():
    ids = torch.tensor([[10, 0, 0, 13], [20, 0, 22, 23], [30, 31, 32, 33]])
    mask = torch.tensor([[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]])
    batch = running(Batch([stream(), stream(), stream("stop")], ids, mask, Cache(ids)))
    assert batch
    assert batch.mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert batch.ids.tolist() == [[0, 10, 13], [20, 22, 23]]
