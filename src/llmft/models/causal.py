"""Causal backbones (GPT-2, Llama, Gemma, ...): prompt and answer in one sequence. Fork 2, with seq2seq.py."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from llmft.encoding import IGNORED
from llmft.models.base import InstructionModule
from llmft.models.loss import head_on, supervised


class Causal(InstructionModule):
    """Decoder only."""

    auto_class = AutoModelForCausalLM

    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Position t predicts the label at t + 1; the last position predicts nothing."""
        targets = torch.full_like(batch["labels"], IGNORED)
        targets[:, :-1] = batch["labels"][:, 1:]
        chosen = supervised(targets)
        with head_on(self.model, chosen):
            outputs = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        return outputs.logits, targets[chosen], chosen
