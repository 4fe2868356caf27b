"""llmft's side: a callback in the callbacks of a real ``python -m llmft`` that listens to the parent."""

from typing import Any

import lightning.pytorch as pl
import torch

from training.flops import Counter
from training.turns import Turns, contents, of_cuda


class InTurns(pl.Callback):
    """Takes the steps that the parent asks for. Comes last among the callbacks, so that their work is in the step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Everything is loaded: tell, and wait for the first turn."""
        self.turns = of_cuda(torch) if pl_module.device.type == "cuda" else Turns()
        self.counter = Counter(pl_module.model)
        self.turns.ready(
            steps=int(trainer.num_training_batches),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            weights_mib=weights_mib(pl_module.model),
            trainable=sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
        )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A step is done, with all that the other callbacks do after it."""
        seq2seq = pl_module.model.config.is_encoder_decoder
        step = contents(batch, len(batch["places"]), seq2seq=seq2seq) | {"loss": pl_module.window_loss}
        self.turns.took(step | self.counter.found())


def weights_mib(model: Any) -> float:
    """What the weights and their scales occupy."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in _tensors(model)}
    return sum(held.values()) / 2**20


def _tensors(model: Any) -> Any:
    for weight in model.parameters():
        yield weight.data
        state = getattr(weight, "quant_state", None)  # of bitsandbytes: scales, and the scales of the scales
        for part in (state, getattr(state, "state2", None)):
            yield from (t for t in vars(part or object).values() if isinstance(t, torch.Tensor)) if part else ()
