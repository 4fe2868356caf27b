"""llmft's side: a callback in a real ``python -m llmft`` that takes its steps when the parent process says so."""

from typing import Any

import lightning.pytorch as pl
import torch

from training.flops import Counter
from training.turns import Turns, contents, of_cuda


class InTurns(pl.Callback):
    """Take steps in turns with the other sides. Runs after all other callbacks, so that their work counts."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Everything is loaded: report, and wait for the first turn."""
        self.turns = of_cuda(torch) if pl_module.device.type == "cuda" else Turns()
        self.counter = Counter(pl_module.model)
        self.turns.ready(
            steps=int(trainer.num_training_batches),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            weights_mib=weights_mib(pl_module.model),
            device=torch.cuda.get_device_name() if pl_module.device.type == "cuda" else "",
            trainable=sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
        )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record a step, after the other callbacks."""
        seq2seq = pl_module.model.config.is_encoder_decoder
        step = contents(batch, len(batch["places"]), seq2seq=seq2seq) | {"loss": pl_module.window_loss}
        self.turns.took(step | self.counter.found())


def weights_mib(model: Any) -> float:
    """Memory of the weights and their quantization scales."""
    held = {t.data_ptr(): t.numel() * t.element_size() for t in _tensors(model)}
    return sum(held.values()) / 2**20


def _tensors(model: Any) -> Any:
    for weight in model.parameters():
        yield weight.data
        state = getattr(weight, "quant_state", None)  # bitsandbytes: scales, and their scales
        for part in (state, getattr(state, "state2", None)):
            yield from (t for t in vars(part or object).values() if isinstance(t, torch.Tensor)) if part else ()
