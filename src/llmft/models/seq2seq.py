"""Seq2seq backbones (T5): prompt to the encoder, answer to the decoder. Fork 2, with causal.py."""

from typing import Any

from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from llmft.models.base import InstructionModule
from llmft.models.loss import head_on, supervised


class Seq2Seq(InstructionModule):
    """Encoder-decoder."""

    auto_class = AutoModelForSeq2SeqLM

    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder reads the labels shifted to the right; the model's own loss, a mean over the batch, is not used."""
        labels = batch["labels"]
        chosen = supervised(labels)
        with head_on(self.model, chosen):
            outputs = self.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels),
                use_cache=False,
            )
        return outputs.logits, labels[chosen], chosen
