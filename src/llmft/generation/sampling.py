"""Scores of one row -> scores whose largest is the drawn token, from random numbers of the row's own."""

from collections.abc import Mapping
from typing import Any

import torch

# Keys of GenerationConfig that say how tokens are drawn; in a batch each row has its own.
OWN = ("temperature", "top_k", "top_p", "min_p")
TOP_K = 50  # what transformers draws from where it is told nothing


def sampling_of(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """How tokens are drawn under these settings of a generator; None where the likeliest is taken."""
    if not settings.get("do_sample"):
        return None
    return {"top_k": TOP_K, **{name: settings[name] for name in OWN if name in settings}}


class Sampling:
    """Draws the tokens of one answer, whoever shares its batch.

    Args:
        settings: ``temperature``, ``top_k``, ``top_p`` and ``min_p`` as in GenerationConfig; what is missing is off.
        seed: Of this answer.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        kinds = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper)
        chosen = zip(OWN, kinds, (1.0, 0, 1.0, 0), strict=True)
        self.warpers = [kind(settings[name]) for name, kind, off in chosen if settings.get(name) not in (None, off)]
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, ids: Any, scores: Any) -> torch.Tensor:
        """Perturbed scores: their argmax is distributed as a draw from the softmax of the warped ones (Gumbel, 1954).

        Args:
            ids: What is there so far [1, S].
            scores: Of the next token [1, V].

        Returns:
            [1, V].
        """
        for warper in self.warpers:
            scores = warper(ids, scores)
        uniform = torch.rand(scores.shape, generator=self.random, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
        return (scores.double() + noise.to(scores.device)).float()
