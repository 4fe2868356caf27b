"""Seq2seq backbones (T5, BART): the prompt is the encoder's, the answer the decoder's. The other family is in ``causal.py``."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from llmft.data.tokenization.codec import IGNORED
from llmft.models.attention import flash
from llmft.models.attention.packing import block_mask, row_starts
from llmft.models.attention.restart_positions import restarted_positions
from llmft.models.backbone.special_ids import decoder_start_id, pad_id
from llmft.models.forward import Forward
from llmft.models.loss import supervised


class Seq2SeqForward(Forward):
    """Encoder-decoder model."""

    auto_class = AutoModelForSeq2SeqLM

    def targets(self, batch: dict[str, Any]) -> Tensor:
        """The labels; the decoder reads them shifted to the right."""
        return batch["labels"]

    def known_positions(self, layout: dict[str, Any]) -> Tensor:
        """Those of the supervised labels."""
        return layout["supervised"]

    def target_weights(self, batch: dict[str, Any]) -> Tensor:
        """Aligned with the labels."""
        return batch["weights"]

    def inputs(self, batch: dict[str, Any], *, varlen: bool) -> dict[str, Any]:
        """Decoder ids, not labels: the model's own loss is a mean over the batch."""
        # an estimate has its batch on the CPU and its model on the meta device, where M2M100 looks up its positions
        decoder = {"decoder_input_ids": self.decoder_ids(batch).to(self.device)}
        if "flat" in batch:
            return decoder | self._by_lengths(batch)
        if "rows" in batch and not varlen:
            return decoder | self._block_masked(batch)
        mask = batch["attention_mask"] if not varlen else None
        return decoder | {"input_ids": batch["input_ids"].to(self.device), "attention_mask": mask}

    def decoder_ids(self, batch: dict[str, Any]) -> Tensor:
        """The labels shifted to the right, [B, T]: every example begins with the decoder's start token.

        Not the model's own ``prepare_decoder_input_ids_from_labels``: M2M100 has none, and mBART's takes the last label as
        the start token, which a truncated answer does not end with.
        """
        labels = batch["labels"]
        ids = labels.roll(1, dims=1)
        start = decoder_start_id(self.model)
        ids[:, 0] = start
        if "rows" in batch:
            ids[row_starts(batch["label_rows"])] = start
        return ids.masked_fill(ids == IGNORED, pad_id(self.model))

    def context(self, batch: dict[str, Any]) -> AbstractContextManager[None]:
        """Absolute positions restart in each example of a packed sequence."""
        if "rows" not in batch:
            return nullcontext()
        longest = None
        if "flat" in batch:
            longest = batch["flat"].sources.longest, batch["flat"].targets.longest
        elif "layout" in batch:  # known on the host: a GPU is not waited for
            sources, targets = (max(map(max, batch["layout"][name])) for name in ("lengths", "label_lengths"))
            longest = sources, targets
        return restarted_positions(self.model, batch["rows"], batch["label_rows"], longest)

    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """An example keeps one label at least, even if it has no supervised one, so that both sides have as many examples."""
        if "label_rows" in batch:
            return batch["rows"] >= 0, batch["label_rows"] >= 0
        targets = supervised(batch["labels"]).flip(1).cumsum(1).flip(1) > 0
        targets[:, 0] = True
        return batch["attention_mask"].bool(), targets

    def _by_lengths(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Each attention with the lengths of its queries and keys; the encoder is called here, with lengths of its own."""
        targets, sources = batch["flat"]
        encoded = self.model.get_encoder()(batch["input_ids"].to(self.device), **flash.arguments(sources, sources))
        decoder = flash.arguments(targets, sources)
        return decoder | {"encoder_outputs": encoded, "decoder_attention_mask": decoder["attention_mask"]}

    def _block_masked(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encoder, decoder and cross attention each under a block mask."""
        sources, targets = batch["rows"].to(self.device), batch["label_rows"].to(self.device)
        dtype = self.model.dtype
        encoder = self.model.get_encoder()
        return {
            # the model would use the encoder's mask for the cross attention too, so the encoder is called here
            "encoder_outputs": encoder(
                batch["input_ids"].to(self.device), attention_mask=block_mask(sources, sources, dtype)
            ),
            "attention_mask": block_mask(targets, sources, dtype),
            "decoder_attention_mask": block_mask(targets, targets, dtype, causal=True),
        }


Seq2Seq = Seq2SeqForward  # the name in the configs of stored runs
