"""The worked batch of rows [0,1,2,3,4], [5,6], [7,8,9] with an EOS that is also the pad token."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.batching.collate import PackedDataset, generation_batch, training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample

N, E = IGNORED, 50256
SHORT, LONG = EncodedExample([3, 4, 1], [5, 1], 3, 2, 2), EncodedExample([3, 1], [5, 6, 7, 1], 2, 4, 4)


def whole(ids, place=""):
    return EncodedExample([*ids, E], [*ids, E], 0, len(ids) + 1, len(ids), place=place)


def test_the_worked_batch():
    batch = training_batch(
        [[whole([0, 1, 2, 3, 4], "f:1")], [whole([5, 6], "f:2")], [whole([7, 8, 9], "f:3")]], pad_id=E
    )
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3, 4, E], [5, 6, E, E, E, E], [7, 8, 9, E, E, E]]
    assert batch["labels"].tolist() == [[0, 1, 2, 3, 4, E], [5, 6, E, N, N, N], [7, 8, 9, E, N, N]]
    assert batch["attention_mask"].sum(1).tolist() == [6, 3, 4]
    assert batch["attention_mask"].tolist()[1] == [1, 1, 1, 0, 0, 0]
    assert batch["places"] == ["f:1", "f:2", "f:3"]


def test_seq2seq_sources_and_targets_have_their_own_width():
    batch = training_batch([[SHORT], [LONG]], pad_id=0)
    assert batch["input_ids"].tolist() == [[3, 4, 1], [3, 1, 0]]
    assert batch["labels"].tolist() == [[5, 1, N, N], [5, 6, 7, 1]]
    assert {batch[name].dtype for name in ("input_ids", "labels", "attention_mask")} == {torch.int64}


def test_packed_lines_say_which_row_a_token_belongs_to():
    batch = training_batch([[whole([5, 6], "f:1"), whole([7], "f:2")], [whole([8, 9], "f:3")]], pad_id=E)
    assert batch["input_ids"].tolist() == [[5, 6, E, 7, E], [8, 9, E, E, E]]
    assert batch["labels"].tolist() == [[5, 6, E, 7, E], [8, 9, E, N, N]]
    assert batch["rows"].tolist() == batch["label_rows"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, -1, -1]]
    assert batch["places"] == ["f:1", "f:2", "f:3"]


def test_packed_sources_and_targets_are_numbered_each():
    batch = training_batch([[SHORT, LONG]], pad_id=0)
    assert batch["rows"].tolist() == [[0, 0, 0, 1, 1]]
    assert batch["label_rows"].tolist() == [[0, 0, 1, 1, 1, 1]]


def test_the_host_knows_where_labels_are_and_how_long_examples_are():
    first, second = whole([5, 6]), EncodedExample([7, 8, E], [N, 8, E], 1, 2, 2)
    layout = training_batch([[first, second], [second]], pad_id=E)["layout"]
    # labels: 5 6 E _ 8 E | _ 8 E _ _ _; nothing predicts the first token of an example
    assert layout["supervised"].tolist() == [0, 1, 2, 4, 5, 7, 8]
    assert layout["predicting"].tolist() == [0, 1, 3, 4, 6, 7]
    assert layout["lengths"] == layout["label_lengths"] == [[3, 3], [3]]
    assert not layout["full"]
    assert training_batch([[second], [second]], pad_id=E)["layout"]["full"]
    assert not training_batch([[SHORT], [replace(SHORT, labels=[1])]], pad_id=0)["layout"]["full"]


def test_weights_are_batched_only_where_an_example_has_some():
    row, other = replace(LONG, weights=[2.0, 2.0, 0.5, 0.5]), SHORT
    assert training_batch([[row], [other]], pad_id=0)["weights"].tolist() == [[2, 2, 0.5, 0.5], [1, 1, 0, 0]]
    assert training_batch([[row, other]], pad_id=0)["weights"].tolist() == [[2, 2, 0.5, 0.5, 1, 1]]
    assert training_batch([[row]], pad_id=0)["weights"].dtype == torch.float32
    assert "weights" not in training_batch([[other]], pad_id=0)
    assert "weights" not in training_batch([[row]], pad_id=0, weighted=False)


def test_a_filler_line_is_a_row_without_labels_and_place():
    lines = PackedDataset([whole([5, 6], "f:1"), whole([7], "f:2")])
    assert training_batch([lines[(1,)]], E)["labels"].tolist() == [[7, E]]
    batch = training_batch([lines[(~1,)]], E)
    assert batch["input_ids"].tolist() == [[7, E]]
    assert batch["labels"].tolist() == [[N, N]]
    assert batch["places"] == []


def test_prompts_are_padded_where_the_answer_does_not_come():
    left = generation_batch([[1, 2, 3], [4]], E, pad_left=True)
    assert left["input_ids"].tolist() == [[1, 2, 3], [E, E, 4]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    right = generation_batch([[1, 2, 3], [4]], 0, pad_left=False)
    assert right["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@given(st.lists(st.lists(st.sampled_from([1, 2, E]), min_size=1, max_size=9), min_size=1, max_size=6))
def test_padding_is_by_position_whatever_the_ids(rows):
    batch = training_batch([[whole(ids)] for ids in rows], pad_id=E)
    for ids, row, mask, labels in zip(rows, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        assert row[mask.bool()].tolist() == labels[labels != N].tolist() == [*ids, E]
        assert (labels[~mask.bool()] == N).all()
