"""What loss, gradient norm and perplexity are, in plain torch: one row at a time, no padding, no mask, no code of llmft."""

import math
from typing import Any

import torch

IGNORED = -100


def nats(model: Any, input_ids: list[int], labels: list[int], start: int | None = None) -> list[torch.Tensor]:
    """-log p of every supervised token of one row, as plain formulas: log-softmax of the logits, the label picked out."""
    ids = torch.tensor([input_ids])
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id if start is None else start
        decoder = torch.tensor([[start, *labels[:-1]]])
        logits, targets = model(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits[0], labels
    else:
        logits, targets = model(input_ids=ids, use_cache=False).logits[0, :-1], labels[1:]
    log_p = logits.double() - logits.double().logsumexp(-1, keepdim=True)
    return [-log_p[position, label] for position, label in enumerate(targets) if label != IGNORED]


def measured(model: Any, rows: list[tuple[list[int], list[int]]], start: int | None = None) -> dict[str, Any]:
    """Of rows ``(input_ids, labels)`` as one step: tokens, loss (nats per token), perplexity, gradients and their norm."""
    model.zero_grad()
    each = [value for ids, labels in rows for value in nats(model, ids, labels, start)]
    loss = sum(each[1:], each[0]) / len(each)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients.values()))
    return {"tokens": len(each), "loss": loss.item(), "perplexity": math.exp(loss.item()), "grad_norm": norm,
            "gradients": gradients}  # fmt: skip
