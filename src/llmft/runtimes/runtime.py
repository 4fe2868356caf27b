"""The interface that every runtime has (``open.py`` opens the one that an exported folder is for)."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np

from llmft.data.records import Turn
from llmft.utils.errors import UserError

Form = Literal["merged", "adapter", "ctranslate2", "gguf", "onnx"]
FORMS: tuple[Form, ...] = get_args(Form)


class NotInstalledError(UserError):
    """The runtime of a form is not installed; the message names the extra. The export is then "not checked"."""


class Runtime(Protocol):
    """An exported model, opened in the software that it is for.

    Everything comes from the exported folder: its tokenizer, its chat template, its stop tokens. Nothing is passed in from
    the run, so that what differs there is found.

    Attributes:
        name: Name and version, such as ``CTranslate2 4.8.5``.
        stop_ids: The ids at which ``generate`` ends an answer.
    """

    name: str
    stop_ids: frozenset[int]

    def prompt_ids(self, turns: Sequence[Turn], tools: Sequence[str] = ()) -> list[int]:
        """The ids of the generation prompt: the folder's chat template, tokenized by the runtime's own tokenizer.

        Args:
            turns: A conversation that ends before the assistant's turn.
            tools: The JSON texts of ``Example.tools``.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, without special tokens."""
        ...

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """Teacher-forced logits, float32 [len(answer), V]: row t is the prediction of ``answer[t]`` after all before it."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers by their ids, in order; each ends with its stop token if one was met within ``max_new_tokens``.

        Greedy is the plain argmax, without penalties. Tokens that the folder's generation config forces (the
        language of mBART) are part of the answer.
        """
        ...
