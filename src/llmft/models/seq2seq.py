"""Seq2seq backbones (T5): prompt to the encoder, answer to the decoder. Fork 2, with causal.py."""

from typing import Any

from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from llmft.models.attention.packing_masks import block_mask, row_starts
from llmft.models.loss import supervised
from llmft.models.module import InstructionModule


class Seq2Seq(InstructionModule):
    """Encoder-decoder."""

    auto_class = AutoModelForSeq2SeqLM

    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder reads the labels shifted to the right; the model's own loss, a mean over the batch, is not used."""
        labels = batch["labels"]
        inputs = {"decoder_input_ids": self.model.prepare_decoder_input_ids_from_labels(labels), "use_cache": False}
        chosen = supervised(labels)
        if "rows" in batch:
            start = self.model.config.decoder_start_token_id
            inputs["decoder_input_ids"][row_starts(batch["label_rows"])] = start
        rows = self.varlen_rows(batch)
        sources = None if rows is None else batch["rows"]
        length = max(batch["input_ids"].shape[1], labels.shape[1])
        with self.head_on(chosen), self.attention_for(length, rows, sources):
            if "rows" in batch and rows is None:
                inputs |= self._block_masks(batch)
            else:
                mask = batch["attention_mask"] if rows is None else None
                inputs |= {"input_ids": batch["input_ids"], "attention_mask": mask}
            outputs = self.model(**inputs)
        return self.logits_on(chosen, outputs), labels[chosen], chosen

    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """A row has one target at least, also where none of its labels is to be learnt, so that both sides have its number."""
        if "label_rows" in batch:
            return batch["rows"] >= 0, batch["label_rows"] >= 0
        targets = supervised(batch["labels"]).flip(1).cumsum(1).flip(1) > 0
        targets[:, 0] = True
        return batch["attention_mask"].bool(), targets

    def _block_masks(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encoder, decoder and cross attention each under a block mask; T5's positions are relative, so none are given."""
        sources, targets, dtype = batch["rows"], batch["label_rows"], self.model.dtype
        encoder = self.model.get_encoder()
        return {
            # the model would give the encoder's mask to the cross attention too, so the encoder is called here
            "encoder_outputs": encoder(batch["input_ids"], attention_mask=block_mask(sources, sources, dtype)),
            "attention_mask": block_mask(targets, sources, dtype),
            "decoder_attention_mask": block_mask(targets, targets, dtype, causal=True),
        }
