"""Examples in a batch: padded, packed, and of both families."""

import torch

from llmft.referee.rows import TrainedRow, rows_of


def test_a_padded_batch():
    batch = {
        "input_ids": torch.tensor([[5, 6, 9], [7, 9, 9]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "labels": torch.tensor([[-100, 6, 9], [-100, 9, -100]]),
        "places": ["a:1", "a:2"],
    }
    assert rows_of(batch, causal=True) == [
        TrainedRow("a:1", [5, 6, 9], [-100, 6, 9]),
        TrainedRow("a:2", [7, 9], [-100, 9]),
    ]


def test_a_packed_batch_with_weights():
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 9, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0]]),
        "labels": torch.tensor([[-100, 6, -100, 9, -100]]),
        "rows": torch.tensor([[0, 0, 1, 1, -1]]),
        "label_rows": torch.tensor([[0, 0, 1, 1, -1]]),
        "weights": torch.tensor([[1.0, 1.0, 0.5, 0.5, 0.0]]),
        "places": ["a:1", "a:2"],
    }
    assert rows_of(batch, causal=True) == [
        TrainedRow("a:1", [5, 6], [-100, 6], [1.0, 1.0]),
        TrainedRow("a:2", [7, 9], [-100, 9], [0.5, 0.5]),
    ]


def test_sources_and_targets_of_a_seq2seq_model():
    batch = {
        "input_ids": torch.tensor([[5, 1], [6, 0]]),
        "attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "labels": torch.tensor([[7, 8, 1], [9, 1, -100]]),
        "places": ["a:1", "a:2"],
    }
    assert rows_of(batch, causal=False) == [TrainedRow("a:1", [5, 1], [7, 8, 1]), TrainedRow("a:2", [6], [9, 1])]
