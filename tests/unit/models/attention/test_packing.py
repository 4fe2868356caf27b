"""Packing and unpadding, by hand and for any lengths: positions, masks, flat sequences, the padded layout of short examples."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models.attention.packing import (
    FULL,
    block_mask,
    is_full,
    lengths,
    logit_difference,
    positions_in_rows,
    row_starts,
    unpad,
)
from llmft.models.attention.varlen import SHORT, padded_layout
from llmft.models.causal import CausalForward
from llmft.models.seq2seq import Seq2SeqForward

ROWS = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 0, 1, -1, -1, -1]])


def test_positions_restart_in_each_example():
    assert positions_in_rows(ROWS).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 1, 2]]
    assert row_starts(ROWS).int().tolist() == [[1, 0, 0, 1, 0, 1], [1, 0, 1, 1, 0, 0]]


def test_a_token_attends_to_its_own_example():
    mask = block_mask(ROWS[:1], ROWS[:1], torch.float32)
    assert mask.shape == (1, 1, 6, 6)
    assert (mask[0, 0] == 0).int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert mask.min() == torch.finfo(torch.float32).min


def test_a_causal_token_attends_to_nothing_later():
    mask = block_mask(ROWS[:1, :3], ROWS[:1, :3], torch.float32, causal=True)
    assert (mask[0, 0] == 0).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_cross_attention_goes_to_the_own_source_and_padding_attends_to_something():
    targets, sources = torch.tensor([[0, 1, 1, -1]]), torch.tensor([[0, 0, 1]])
    mask = block_mask(targets, sources, torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert (mask[0, 0] == 0).int().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 1]]


N = IGNORED
SEQ2SEQ = [
    EncodedExample([3, 4, 1], [5, 1], 3, 2, 2),
    EncodedExample([3, 1], [5, 6, 7, 1], 2, 4, 4),
    EncodedExample([9], [N, N], 1, 2, 0),
]


def tokens(family: Any, batch: dict[str, Any]) -> Any:
    return family.tokens(None, batch)


def unpadded(family: Any, lines: list[list[EncodedExample]]) -> dict[str, Any]:
    batch = training_batch(lines, pad_id=0)
    return unpad(batch, *tokens(family, batch))


def test_unpadded_examples_of_a_seq2seq_model():
    line = unpadded(Seq2SeqForward, [[row] for row in SEQ2SEQ])
    assert line["input_ids"].tolist() == [[3, 4, 1, 3, 1, 9]]
    assert line["attention_mask"].tolist() == [[1] * 6]
    # what is not learnt at the end of a row may go; one target stays, so that the third source has its own
    assert line["labels"].tolist() == [[5, 1, 5, 6, 7, 1, N]]
    assert lengths(line["rows"]) == [[3, 2, 1]]
    assert lengths(line["label_rows"]) == [[2, 4, 1]]


def test_unpadded_packed_sequences_of_a_seq2seq_model():
    line = unpadded(Seq2SeqForward, [[SEQ2SEQ[1], SEQ2SEQ[0]], [SEQ2SEQ[0], SEQ2SEQ[2]]])
    assert line["input_ids"].tolist() == [[3, 1, 3, 4, 1, 3, 4, 1, 9]]
    assert line["labels"].tolist() == [[5, 6, 7, 1, 5, 1, 5, 1, N, N]]
    assert lengths(line["rows"]) == [[2, 3, 3, 1]]
    assert lengths(line["label_rows"]) == [[4, 2, 2, 2]]


def test_an_example_of_a_causal_model_keeps_its_untrained_end():
    line = unpadded(
        CausalForward,
        [[EncodedExample([5, 6, 7], [N, 6, N], 1, 2, 1)], [EncodedExample([8, 0, 0, 0], [N, 0, 0, 0], 1, 3, 3)]],
    )
    assert line["input_ids"].tolist() == [[5, 6, 7, 8, 0, 0, 0]]
    assert line["labels"].tolist() == [[N, 6, N, N, 0, 0, 0]]
    assert lengths(line["rows"]) == lengths(line["label_rows"]) == [[3, 4]]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8), st.integers(1, 4))
def test_unpadding_loses_nothing_whatever_the_lengths(sizes, line_of):
    rows = [EncodedExample([n + 1] * a, [n + 1] * b, 0, b, b) for n, (a, b) in enumerate(sizes)]
    lines = [rows[start : start + line_of] for start in range(0, len(rows), line_of)]
    line = unpadded(Seq2SeqForward, lines)
    assert line["input_ids"][0].tolist() == [i for row in rows for i in row.input_ids]
    assert line["labels"][0].tolist() == [i for row in rows for i in row.labels]
    assert lengths(line["rows"]) == [[a for a, _ in sizes]]
    assert lengths(line["label_rows"]) == [[b for _, b in sizes]]
    both = [EncodedExample(row.input_ids, row.input_ids, 0, 1, 1) for row in rows]
    line = unpadded(CausalForward, [both[start : start + line_of] for start in range(0, len(both), line_of)])
    assert line["labels"].tolist() == line["input_ids"].tolist()
    assert lengths(line["label_rows"]) == [[a for a, _ in sizes]]


def test_a_batch_with_little_padding_is_full():
    assert is_full(torch.ones(2, 5, dtype=torch.bool))
    kept = torch.ones(1, 100, dtype=torch.bool)
    kept[0, : round(100 * (1 - FULL))] = False
    assert not is_full(kept)
    assert is_full(torch.ones(1, 100, dtype=torch.bool), kept)  # both sides count together


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_the_padded_layout_of_short_examples_loses_no_token(sizes):
    layout = padded_layout([sizes])
    assert layout
    tokens = torch.arange(sum(sizes))
    slots = tokens[layout.tokens]
    assert slots[layout.slots].tolist() == tokens.tolist()
    table = slots.view(layout.shape)
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    assert [row[:size].tolist() for row, size in zip(table, sizes, strict=True)] == [
        list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)
    ]
    assert (~layout.copies).sum(-1).flatten().tolist() == sizes


def test_long_examples_have_no_padded_layout():
    assert padded_layout([[3, SHORT + 1]]) is None


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("packed", "single", "value", "finite", "small"),
    [
        ([1.0, 4.0], [1.0, 2.0], 1.0, True, False),
        ([1.0, 2.0], [1.0, 2.0], 0.0, True, True),
        ([0.0, 0.0], [0.0, 0.0], 0.0, True, True),  # a head that is initialized to 0
        ([1.0, -INF], [1.0, -INF], 0.0, True, True),  # a masked vocabulary
        ([1.0, NAN], [1.0, 2.0], INF, True, False),  # packing breaks what is sound one by one
        ([1.0, -INF], [1.0, 2.0], INF, True, False),
        ([NAN, NAN], [NAN, NAN], INF, False, False),  # the model is broken, whatever packing does
        ([1.0, NAN], [1.0, NAN], INF, False, False),
        ([1.0, 2.0], [1.0, INF], INF, False, False),
    ],
)
def test_nan_and_infinity_are_told_from_a_difference(packed, single, value, finite, small):
    batches = [[torch.tensor([logits])] for logits in (packed, single)]
    found = logit_difference(torch.nn.Identity(), lambda batch: batch, *batches)
    assert (found.value, found.finite, found.is_small) == (value, finite, small)


def test_float32_logits_of_half_precision_have_its_tolerance():
    batches = [torch.tensor([[1.0, 2.0]])], [torch.tensor([[1.0, 2.06]])]
    identity = torch.nn.Identity()
    assert not logit_difference(identity, lambda batch: batch, *batches).is_small
    with torch.autocast("cpu", torch.bfloat16):
        assert logit_difference(identity, lambda batch: batch, *batches).is_small
    setattr(identity, "dtype", torch.bfloat16)  # noqa: B010 (of a transformers model)
    assert logit_difference(identity, lambda batch: batch, *batches).is_small
