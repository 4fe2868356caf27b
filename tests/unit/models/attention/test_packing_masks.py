"""Positions and masks of rows that share a line, by hand."""

import torch

from llmft.models.attention.packing import block_mask, positions_in_rows, row_starts

ROWS = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 0, 1, -1, -1, -1]])


def test_positions_start_again_in_each_row():
    assert positions_in_rows(ROWS).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 1, 2]]
    assert row_starts(ROWS).int().tolist() == [[1, 0, 0, 1, 0, 1], [1, 0, 1, 1, 0, 0]]


def test_a_token_sees_its_own_row():
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


def test_a_causal_token_sees_nothing_later():
    mask = block_mask(ROWS[:1, :3], ROWS[:1, :3], torch.float32, causal=True)
    assert (mask[0, 0] == 0).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_cross_attention_goes_to_the_own_source_and_padding_sees_something():
    targets, sources = torch.tensor([[0, 1, 1, -1]]), torch.tensor([[0, 0, 1]])
    mask = block_mask(targets, sources, torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert (mask[0, 0] == 0).int().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 1]]
