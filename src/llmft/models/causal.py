"""Causal backbones (GPT-2, Llama, Gemma, ...): prompt and answer in one sequence. Fork 2, with seq2seq.py."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from llmft.data.tokenization.codec import IGNORED
from llmft.models.attention.packing_masks import positions_in_rows, row_starts
from llmft.models.loss import supervised
from llmft.models.module import InstructionModule


class Causal(InstructionModule):
    """Decoder only."""

    auto_class = AutoModelForCausalLM

    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Position t predicts the label at t + 1; the last position predicts nothing."""
        targets = torch.full_like(batch["labels"], IGNORED)
        targets[:, :-1] = batch["labels"][:, 1:]
        # padding stands on the right, where no token that counts could see it
        inputs = {"attention_mask": batch["attention_mask"] if self.plain else None}
        if "rows" in batch:
            targets[:, :-1][row_starts(batch["rows"])[:, 1:]] = (
                IGNORED  # a row's first token is not the next of another
            )
            # transformers keeps rows apart by positions that restart, if it gets no mask and no cache
            inputs = {"attention_mask": None, "position_ids": positions_in_rows(batch["rows"])}
        chosen = supervised(targets)
        with self.head_on(chosen), self.attention_for(targets.shape[1], self.varlen_rows(batch)):
            outputs = self.model(input_ids=batch["input_ids"], use_cache=False, **inputs)
        return self.logits_on(chosen, outputs), targets[chosen], chosen

    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """A label stands at its token."""
        kept = batch["attention_mask"].bool()
        return kept, kept
