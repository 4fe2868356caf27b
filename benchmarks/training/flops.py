"""Useful floating-point operations per token of a training.

For each weight matrix of N numbers a token needs 2N operations forward, 2N backward for the gradient of the input, and 2N for the gradient
of the weight if it is trainable: 6N, or 4N if it is frozen (Kaplan et al. 2020, appendix B, count 6N). The first matrices above frozen
embeddings need no input gradient. The head counts for supervised tokens only. Attention needs, per layer and example,
4 d T^2 forward (scores, and the weighted sum of values; d = heads times head size) and twice that backward; half of it if
causal. Not counted: padding, recomputation, embeddings, norms, softmax, optimizer.
"""

from collections.abc import Mapping
from typing import Any

import torch

# Names of token counts in ``turns.contents``.
KINDS = ("sources", "targets", "supervised")
PAIRS = ("source_source", "source_target", "target_target")


class Counter:
    """Count operations per token, by the kind of tokens that a matrix processes; the first step shows which inputs need a gradient.

    Args:
        model: A transformers (or peft) model in training.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.without_gradient = model, set()
        self.matrices = {name: module for name, module in model.named_modules() if _is_matrix(module)}
        self.hooks = [m.register_forward_pre_hook(self._look(name)) for name, m in self.matrices.items()]

    def _look(self, name: str) -> Any:
        def look(_: Any, inputs: tuple[Any, ...]) -> None:
            if torch.is_grad_enabled() and inputs and not inputs[0].requires_grad:
                self.without_gradient.add(name)

        return look

    def found(self) -> dict[str, float]:
        """Operations per token of each kind (``per_sources``, ...) and per pair of tokens (``per_source_source``, ...)."""
        for hook in self.hooks:
            hook.remove()
        if self.hooks:
            self.hooks, self.counts = [], self._count()
        return self.counts

    def _count(self) -> dict[str, float]:
        head, seq2seq = self.model.get_output_embeddings(), self.model.config.is_encoder_decoder
        counts = dict.fromkeys((f"per_{name}" for name in (*KINDS, *PAIRS)), 0.0)
        for name, module in self.matrices.items():
            parts = 1 + (name not in self.without_gradient) + any(p.requires_grad for p in module.parameters())
            kind = "supervised" if module is head else _kind(name) if seq2seq else "sources"
            counts[f"per_{kind}"] += 2.0 * parts * numbers(module)
        for pair, layers in _attention_layers(self.model.config).items():
            counts[f"per_{pair}"] = 12.0 * layers * _width(self.model.config)
        return counts


def flops(step: Mapping[str, float]) -> float:
    """The useful operations of a step.

    Args:
        step: Counts of ``turns.contents`` and of ``Counter``.
    """
    return sum(step[name] * step[f"per_{name}"] for name in (*KINDS, *PAIRS))


def numbers(module: Any) -> int:
    """Numbers in a matrix; a 4-bit one holds two per byte."""
    if hasattr(module, "in_features"):
        return module.in_features * module.out_features
    return module.weight.numel()


def _is_matrix(module: Any) -> bool:
    has_weight = getattr(getattr(module, "weight", None), "ndim", 0) == 2
    return has_weight and not list(module.children()) and "Embedding" not in type(module).__name__


def _kind(name: str) -> str:
    """``sources`` for the encoder and for the keys and values of cross attention, else ``targets``."""
    of_sources = ".encoder." in f".{name}" or any(f"EncDecAttention.{part}" in name for part in "kv")
    return "sources" if of_sources else "targets"


def _attention_layers(config: Any) -> dict[str, float]:
    """Number of layers by what attends to what; a causal layer counts half."""
    if config.is_encoder_decoder:
        decoders = config.num_decoder_layers
        return {"source_source": config.num_layers, "source_target": decoders, "target_target": decoders / 2}
    return {"source_source": config.num_hidden_layers / 2}


def _width(config: Any) -> int:
    heads = config.num_attention_heads
    return heads * (getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or config.hidden_size // heads)
