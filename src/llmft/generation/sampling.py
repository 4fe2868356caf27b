"""Next-token sampling with one random number generator per sequence, so that a token does not depend on the batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from llmft.utils.device import sent

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
# Probabilities as whole numbers: shares of 2**40, and a random number of 40 bits, in two halves so that no product overflows.
BITS, HALF = 40, 20


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
    for row in sorted(samplings):
        groups.setdefault(samplings[row].key, []).append(row)
    scores = scores.clone()
    for rows in groups.values():
        whole = len(rows) == len(scores)  # then no index has to be copied to the device
        warped: Any = scores if whole else scores[rows]
        given: Any = ids if whole else ids[rows]
        for warper in samplings[rows[0]].warpers:
            warped = warper(given, warped)
        tokens = draw(warped, [samplings[row].random.random() for row in rows])
        chosen = torch.full_like(warped, -torch.inf).scatter(1, tokens, 0.0)
        if whole:
            return chosen
        scores[rows] = chosen
    return scores


def draw(logits: torch.Tensor, uniform: Sequence[float]) -> torch.Tensor:
    """The token of each row at which the cumulative distribution passes a random number: on a CPU in float64, else in integers.

    Args:
        logits: [N, V].
        uniform: N numbers from 0 to below 1.

    Returns:
        Token ids, [N, 1].
    """
    if logits.device.type != "cpu":
        return draw_in_integers(logits, uniform)
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    cumulative = cumulative / cumulative[:, -1:]  # ends in exactly 1, so that a number below 1 always finds a token
    return torch.searchsorted(cumulative, torch.tensor(uniform, dtype=torch.float64)[:, None], right=True)


def draw_in_integers(logits: torch.Tensor, uniform: Sequence[float]) -> torch.Tensor:
    """As ``draw``, with probabilities rounded down to multiples of 2**-40.

    A GPU adds floats in an order that may differ from call to call, and MPS has no float64; sums of integers are exact on every
    device, so that equal logits give equal tokens. The random numbers come from the CPU: one per row, not one per token of the
    vocabulary.
    """
    shares = (logits.float().softmax(dim=-1) * 2.0**BITS).long()
    cumulative = shares.cumsum(dim=-1)
    numbers = [int(number * 2**BITS) for number in uniform]
    parts = torch.tensor([[number >> HALF, number % 2**HALF] for number in numbers])
    high, low = sent(parts, logits.device).split(1, dim=1)
    total = cumulative[:, -1:]
    passed = (total * high + (total * low >> HALF)) >> HALF  # total times the random number; always below total
    # logits with NaN have no total; a token beyond the vocabulary would end the CUDA context
    return (cumulative <= passed).sum(dim=-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
