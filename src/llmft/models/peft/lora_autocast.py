"""LoRA under autocast: inputs in the dtype of autocast from the start, instead of copies in float32."""

from typing import Any

from torch import Tensor, nn

from llmft.models.peft.lora_recompute import LoraARecompute, autocast_dtype_of


def follow_autocast(model: Any) -> None:
    """Drop out, and multiply with A, in the dtype of autocast; without autocast nothing changes.

    peft casts the input of each layer to float32, the dtype of A; dropout then computes in float32, and autocast casts back.

    Args:
        model: A peft model; layers that are not vanilla LoRA (DoRA takes norms in the dtype of the input), or recompute their
            input, are not changed.
    """
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            continue
        for name, a in layer.lora_A.items():
            if not isinstance(a, LoraARecompute):
                layer.lora_dropout[name] = LoraDropout(getattr(layer.lora_dropout[name], "p", 0.0), a)
                layer.cast_input_dtype_enabled = False


class LoraDropout(nn.Dropout):
    """Dropout before LoRA's A matrix, in the dtype in which A is multiplied.

    Args:
        p: Dropout probability, in train mode.
        a: The A matrix; no submodule of this one.
    """

    def __init__(self, p: float, a: nn.Module) -> None:
        super().__init__(p)
        self.a: Any = (a,)
        self.train(a.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, T, D], of any dtype, to the dtype of autocast, or without autocast to that of A."""
        return super().forward(input.to(autocast_dtype_of(input) or self.a[0].weight.dtype))
