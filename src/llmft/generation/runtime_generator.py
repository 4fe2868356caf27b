"""Prompts -> answers in a runtime other than PyTorch: what ``Generator`` is for the models that transformers runs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from llmft.data.batching.sampler import length_batches
from llmft.data.records import Turn
from llmft.generation.stream import Answer
from llmft.runtimes.runtime import Runtime
from llmft.utils.errors import UserError

# Settings that may have any value: those of batches change no answer, those of sampling no greedy one.
TAKEN = {"max_new_tokens", "temperature", "top_p", "batch_size", "batch_tokens", "seed", "dtype"}
# Settings that must have these values; all others must be None.
NEUTRAL = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "samples": 1}


class RuntimeGenerator:
    """A runtime and generation settings.

    Args:
        runtime: An exported folder in its runtime.
        settings: As of ``Generator``.

    Raises:
        UserError: A setting is not of greedy decoding.
    """

    def __init__(self, runtime: Runtime, settings: Mapping[str, Any]) -> None:
        self.runtime, self.given = runtime, settings
        self.batch_size, self.seed = settings["batch_size"], settings["seed"]
        check_dtype(settings, "generation", runtime.name)
        for name, value in settings.items():
            if name not in TAKEN and NEUTRAL.get(name) != value:
                raise UserError(
                    f"generation.{name}={json.dumps(value)}: {runtime.name} decodes greedily; add generation=greedy"
                )

    def with_settings(self, **changes: Any) -> "RuntimeGenerator":
        """The same runtime with some settings changed."""
        return RuntimeGenerator(self.runtime, {**self.given, **changes})

    def sharing(self, prompts: Sequence[Sequence[int]]) -> "RuntimeGenerator":  # noqa: ARG002
        """As ``Generator.sharing``; a runtime shares nothing."""
        return self

    def prompts(self, contexts: Sequence[Sequence[Turn]], tools: Iterable[Sequence[str]] = ()) -> list[list[int]]:
        """The ids of each prompt, as the runtime tokenizes it."""
        pairs = zip(contexts, chain(tools, repeat(())), strict=False)
        return [self.runtime.prompt_ids(context, schemas) for context, schemas in pairs]

    def answers(self, contexts: Sequence[Sequence[Turn]], tools: Iterable[Sequence[str]] = ()) -> list[Answer]:
        """An answer for each context, in order."""
        return self.continued(self.prompts(contexts, tools))

    def continued(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        known: Mapping[int, Answer] | None = None,
        finished: Callable[[list[int], list[Answer]], None] = lambda *_: None,
    ) -> list[Answer]:
        """An answer for each prompt's ids, in order; the arguments as of ``Generator.continued``."""
        answers = dict(known or {})
        for rows in length_batches([len(prompt) for prompt in prompts], max_rows=self.batch_size):
            if all(row in answers for row in rows):
                continue
            ids = self.runtime.generate([prompts[row] for row in rows], self.given["max_new_tokens"])
            found = [self._answer(one) for one in ids]
            answers.update(zip(rows, found, strict=True))
            finished(rows, found)
        return [answers[row] for row in range(len(prompts))]

    def check_positions(self, prompts: Sequence[Sequence[int]]) -> None:
        """A runtime reports prompts that are too long itself."""

    def _answer(self, ids: list[int]) -> Answer:
        ended = bool(ids) and ids[-1] in self.runtime.stop_ids
        kept = ids[:-1] if ended else ids
        return Answer(self.runtime.decode(kept), ended, len(kept))


def check_dtype(settings: Mapping[str, Any], section: str, runtime: str) -> None:
    """Check that no dtype is asked for: a runtime computes in the dtype of the files that it was given.

    Args:
        settings: The keys of ``evaluate`` or ``generation``.
        section: Which of the two.
        runtime: Its name.

    Raises:
        UserError: ``dtype`` is not ``auto``.
    """
    if (dtype := settings.get("dtype", "auto")) != "auto":
        raise UserError(
            f"{section}.dtype={dtype}: {runtime} computes in the dtype of its files; pass the run itself as run=RUN"
        )
