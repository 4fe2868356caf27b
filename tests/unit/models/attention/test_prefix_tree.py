"""Shared prefixes by hand: the tree, what may be shared, the flat sequence, and who attends to what."""

import numpy as np
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models.attention.packing import unpad
from llmft.models.attention.prefix_tree import Segment, alike, prefix_tree, share_prefixes, sharing_limits
from llmft.models.attention.shared_prefix import shared_layout
from llmft.models.causal import CausalForward

N = IGNORED
# three begin with 1 2 3; two of these with 1 2 3 4 5
IDS = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 8, 9], [1, 2, 3, 4, 5, 9, 9, 9]]
TREE = [Segment(-1, 0, 3, 0), Segment(0, 3, 5, 0), Segment(1, 5, 7, 0), Segment(0, 3, 5, 1), Segment(1, 5, 8, 2)]


def arrays(rows):
    return [np.array(row) for row in rows]


def flat_sequence(labels):
    rows = [EncodedExample(i, label, 1, 1, 1) for i, label in zip(IDS, labels, strict=True)]
    batch = training_batch([[row] for row in rows], pad_id=0)
    kept = batch["attention_mask"].bool()
    return unpad(batch, kept, kept)


LABELS = [[N, N, N, N, N, N, 7], [N, N, N, N, 9], [N, N, N, N, N, N, 9, 9]]


def test_a_tree_has_shared_segments_first_and_then_the_rest_of_each_example():
    assert prefix_tree(arrays(IDS), [5, 4, 6], least=2) == TREE


def test_a_segment_that_saves_too_little_is_left_to_those_after_it():
    root = [Segment(-1, 0, 3, 0), Segment(0, 3, 7, 0), Segment(0, 3, 5, 1), Segment(0, 3, 8, 2)]
    assert prefix_tree(arrays(IDS), [5, 4, 6], least=3) == root  # 2 tokens once instead of twice save 2
    pair = [[1, 2, 3, 4, 5, 6], [9, 9], [1, 2, 3, 4, 5, 7]]  # all three have nothing in common
    assert prefix_tree(arrays(pair), [5, 1, 5], least=5)[0] == Segment(-1, 0, 5, 0)
    assert prefix_tree(arrays(IDS), [5, 4, 6], least=99) == [Segment(-1, 0, len(ids), n) for n, ids in enumerate(IDS)]


def test_the_first_position_with_a_loss_is_not_shared():
    labels = arrays([[N, N, N, 4], [N, 2, 3, 4], [1, 2, 3, 4], [N, N, N, N], [N]])
    # the label at 3 is predicted at 2, so that 2 tokens may be shared; the others' first loss is at position 0 or nowhere
    assert sharing_limits(labels) == [2, 0, 0, 3, 0]
    assert prefix_tree(arrays(IDS), [2, 4, 6], least=1)[0] == Segment(-1, 0, 2, 0)


def test_the_shared_sequence():
    shared = share_prefixes(flat_sequence(LABELS), least=2, worth=0.0)
    assert shared
    assert shared["segments"] == TREE
    assert shared["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]]
    assert shared["positions"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7]]
    assert shared["labels"].tolist() == [[N, N, N, N, N, N, 7, N, 9, N, 9, 9]]
    assert shared["rows"].tolist() == shared["label_rows"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]]
    targets = CausalForward.targets(None, shared)  # pyright: ignore[reportArgumentType]
    assert targets.tolist() == [[N, N, N, N, N, 7, N, 9, N, 9, 9, N]]


def test_what_saves_little_or_is_all_trained_is_not_shared():
    assert share_prefixes(flat_sequence(LABELS)) is None
    assert share_prefixes(flat_sequence(LABELS), least=2, worth=0.5) is None  # 12 of 20 tokens are left
    assert share_prefixes(flat_sequence(IDS), least=1) is None


def test_two_supervised_examples_that_begin_alike():
    labels = [[N] * 7, LABELS[1], LABELS[2]]
    flat = flat_sequence(labels)
    pair = alike(flat, TREE)
    assert pair
    assert pair["input_ids"].tolist() == [IDS[1] + IDS[2]]
    assert pair["labels"].tolist() == [labels[1] + labels[2]]
    assert alike(flat_sequence([[N] * 7, [N] * 5, LABELS[2]]), TREE) is None


def seen_by(layout):
    """The tokens that each token attends to, of a tree's layout."""
    found = {}
    for span in layout.spans:
        keys = torch.cat([torch.arange(part.start, part.stop) for part in (*span.before, span.own)])
        causal = torch.ones(len(keys), len(keys), dtype=torch.bool).triu(1)
        hidden = causal if span.hidden is None else span.hidden[0, 0]
        found |= {n: keys[~hidden[i]].tolist() for i, n in enumerate(range(span.own.start, span.own.stop))}
    if layout.leaves:
        start, queries, keys, hidden = layout.leaves
        keys = keys.view(len(hidden), -1)
        for token, slot in enumerate(queries.slots.tolist(), start):
            row, i = divmod(slot, queries.shape[1])
            found[token] = keys[row][~hidden[row, 0, i]].tolist()
    return found


def test_a_token_attends_to_what_is_before_its_segment_and_to_its_own(monkeypatch):
    first = [0, 1, 2]
    expected = {0: [0], 1: [0, 1], 2: first, 3: [*first, 3], 4: [*first, 3, 4]}
    expected |= {5: [*first, 3, 4, 5], 6: [*first, 3, 4, 5, 6], 7: [*first, 7], 8: [*first, 7, 8]}
    expected |= {9: [*first, 3, 4, 9], 10: [*first, 3, 4, 9, 10], 11: [*first, 3, 4, 9, 10, 11]}
    padded = shared_layout(TREE)
    assert padded.leaves
    assert seen_by(padded) == expected
    monkeypatch.setattr("llmft.models.attention.varlen.SHORT", 2)
    alone = shared_layout(TREE)
    assert alone.leaves is None
    assert seen_by(alone) == expected
