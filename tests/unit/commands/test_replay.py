"""A replay of a training with FlashAttention attends with it where it can, and says so where it cannot."""

import logging
from typing import Any

import pytest

from llmft.commands import replay
from llmft.models.attention.kernels import Kernels

BATCH = {
    "input_ids": "ids",
    "layout": {"lengths": [[2]], "label_lengths": [[2]], "predicting": "perhaps changed since"},
}


class Forward:
    """With FlashAttention, or without."""

    model = None

    def __init__(self, *, packs: bool, here: bool) -> None:
        self.kernels: Any = Kernels(flash=True, varlen=True, packing_is_equivalent=packs)
        self.kernels.attends_by_lengths = lambda *_: here


@pytest.mark.parametrize(("packs", "here"), [(True, True), (True, False), (False, False)])
def test_the_attention_of_a_replay(monkeypatch, caplog, packs, here):
    monkeypatch.setattr(replay.flash, "unavailable", lambda: "torch finds no CUDA GPU on this machine")
    forward: Any = Forward(packs=packs, here=here)
    with caplog.at_level(logging.INFO):
        found = replay.by_lengths(forward, BATCH)
    lengths = {"layout": {"lengths": [[2]], "label_lengths": [[2]]}} if here else {}
    assert found == {"input_ids": "ids", **lengths}
    assert ("model.attention=flash, and the replay has sdpa (torch finds no CUDA GPU" in caplog.text) == (
        packs and not here
    )
