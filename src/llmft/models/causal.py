"""Causal backbones (GPT-2, Llama, Gemma, ...): prompt and answer are one sequence. The other family is in ``seq2seq.py``."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from llmft.data.tokenization.codec import IGNORED
from llmft.models.attention import flash
from llmft.models.attention.packing import positions_in_rows, row_starts
from llmft.models.forward import Forward


class CausalForward(Forward):
    """Decoder-only model."""

    auto_class = AutoModelForCausalLM

    def targets(self, batch: dict[str, Any]) -> Tensor:
        """Position t predicts the label at t + 1; the last position of an example predicts nothing."""
        targets = torch.full_like(batch["labels"], IGNORED)
        targets[:, :-1] = batch["labels"][:, 1:]
        if "rows" in batch:
            targets[:, :-1][row_starts(batch["rows"])[:, 1:]] = IGNORED  # the first token of the next example
        return targets

    def known_positions(self, layout: dict[str, Any]) -> Tensor:
        """Those before a supervised label of the same example."""
        return layout["predicting"]

    def target_weights(self, batch: dict[str, Any]) -> Tensor:
        """Position t has the weight of the label at t + 1."""
        return batch["weights"].roll(-1, dims=1)

    def inputs(self, batch: dict[str, Any], *, varlen: bool) -> dict[str, Any]:
        """Position ids if the batch is packed; no mask, except with ``performance=plain``."""
        inputs = {"input_ids": batch["input_ids"]}
        if "rows" in batch:
            # transformers keeps packed examples apart by position ids that restart, if it gets no mask and no cache;
            # an estimate has its batch on the CPU and its model on the meta device
            positions = batch["positions"] if "positions" in batch else positions_in_rows(batch["rows"])
            positions = positions.to(self.device)
            inputs |= {"attention_mask": None, "position_ids": positions}
            return inputs | flash.arguments(batch["flat"].targets, batch["flat"].targets) if "flat" in batch else inputs
        # padding is on the right, where no supervised token attends to it
        return inputs | {"attention_mask": batch["attention_mask"] if self.kernels.plain else None}

    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Labels are aligned with the ids."""
        kept = batch["attention_mask"].bool()
        return kept, kept


Causal = CausalForward  # the name in the configs of stored runs
