"""Next-token sampling with one random number generator per sequence, so that a token does not depend on the batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

# Keys of GenerationConfig that shape the distribution, in the order of transformers' warpers, and their neutral
# values. Sequences of one batch may differ in them.
SAMPLING_KEYS: dict[str, float | None] = {
    "temperature": 1.0,
    "top_h": None,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
}
TOP_K = 50  # transformers' default


def sampling_settings(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sampling keys of generation settings; None for greedy decoding."""
    if not settings.get("do_sample"):
        return None
    return {"top_k": TOP_K, **{name: settings[name] for name in SAMPLING_KEYS if name in settings}}


class Sampling:
    """Samples the tokens of one answer.

    The random numbers depend on the seed, the sample's index and the prompt, never on the batch: the same seed gives the same
    answer in ``answer``, ``chat``, ``serve``, ``evaluate`` and the samples in training. The prompt takes part so that the rows
    of an evaluation are sampled independently, the index so that sample 1 of seed 7 is not sample 0 of seed 8.

    Args:
        settings: Sampling keys as in GenerationConfig; a missing one is neutral.
        seed: ``generation.seed``, or the seed of a request.
        sample: Index of this answer among those sampled for the prompt (``generation.samples``, ``n`` of a request).
        prompt: Token ids of the prompt.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int, *, sample: int = 0, prompt: Sequence[int] = ()) -> None:
        from transformers import (
            EpsilonLogitsWarper,
            EtaLogitsWarper,
            MinPLogitsWarper,
            TemperatureLogitsWarper,
            TopHLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
            TypicalLogitsWarper,
        )

        kinds = (
            TemperatureLogitsWarper,
            TopHLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
            MinPLogitsWarper,
            TypicalLogitsWarper,
            EpsilonLogitsWarper,
            EtaLogitsWarper,
        )
        chosen = {name: settings[name] for name, off in SAMPLING_KEYS.items() if settings.get(name) not in (None, off)}
        warpers = dict(zip(SAMPLING_KEYS, kinds, strict=True))
        self.warpers = [warpers[name](value) for name, value in chosen.items()]
        self.key = tuple(chosen.items())
        self.random = np.random.default_rng([seed, sample, *prompt])


def sample_tokens(samplings: Mapping[int, Sampling], ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Sample one token for some rows of a batch, by inverting the cumulative distribution at one random number per row.

    Args:
        samplings: The rows to sample, and how; rows with equal settings are computed together.
        ids: Tokens so far [B, S].
        scores: Logits of the next token [B, V].

    Returns:
        Scores [B, V] whose argmax is the sampled token in these rows; the other rows are unchanged.
    """
    groups: dict[Any, list[int]] = {}
    for row, sampling in samplings.items():
        groups.setdefault(sampling.key, []).append(row)
    scores = scores.clone()
    for rows in groups.values():
        warped: Any = scores[rows]
        given: Any = ids[rows]
        for warper in samplings[rows[0]].warpers:
            warped = warper(given, warped)
        cumulative = warped.double().softmax(dim=-1).cumsum(dim=-1)
        cumulative = cumulative / cumulative[:, -1:]  # ends in exactly 1, so that a number below 1 always finds a token
        uniform = torch.tensor([[samplings[row].random.random()] for row in rows], dtype=torch.float64)
        tokens = torch.searchsorted(cumulative, uniform.to(cumulative.device), right=True)
        scores[rows] = torch.full_like(warped, -torch.inf).scatter(1, tokens, 0.0)
    return scores
