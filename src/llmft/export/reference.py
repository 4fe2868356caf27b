"""The reference of a passport: what the trained model does on the run's own prompts, and its loss on held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from llmft.config.schema import TrainConfig
from llmft.data.datamodule import open_data
from llmft.data.eval_rows import first_rows
from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.generation.questions import sample_questions
from llmft.generation.settings import generation_config, stop_ids
from llmft.runtimes.loss import answer_loss
from llmft.runtimes.pytorch import PyTorchRuntime
from llmft.runtimes.runtime import Runtime
from llmft.utils.errors import UserError

MAX_NEW_TOKENS = 32  # of a compared answer; enough to use all weights, and small for large vocabularies
HELD_OUT_ROWS = 32


class HeldOut(NamedTuple):
    """A held-out row: the ids of its prompt and of its reference answer with the stop token."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class ReferenceAnswer:
    """The trained model's greedy answer to a prompt.

    Attributes:
        context: The turns of the prompt.
        prompt: Its ids, by the codec of the training.
        answer: The ids of the answer, with the stop token if it was met.
        logits: [len(answer), V], float32: the predictions of the answer's ids.
    """

    context: Sequence[Turn]
    prompt: list[int]
    answer: list[int]
    logits: np.ndarray

    def margins(self) -> np.ndarray:
        """Distance of each answer token's logit from the best other one, [len(answer)]; infinite where it was forced."""
        chosen = np.array(self.answer)
        rows = np.arange(len(chosen))
        others = self.logits.copy()
        others[rows, chosen] = -np.inf
        found = self.logits[rows, chosen] - others.max(axis=1)
        return np.where(found < 0, np.inf, found)


@dataclass(frozen=True)
class Reference:
    """What an export is compared with.

    Attributes:
        answers: One for each prompt.
        stop_id: The trained stop token.
        stop_ids: All ids that end an answer of the trained model.
        held_out: Held-out rows, only for quantized forms.
        split: The split that they are from.
        loss: The trained model's loss on them, nats per token.
    """

    answers: list[ReferenceAnswer]
    stop_id: int
    stop_ids: frozenset[int]
    held_out: list[HeldOut]
    split: str = ""
    loss: float = float("nan")


def collect(model: Any, codec: Codec, cfg: TrainConfig, *, held_out: bool) -> Reference:
    """Run the trained model, before its adapter is merged.

    Args:
        model: The trained model in float32, in eval mode.
        codec: Of the run.
        cfg: The run's config.
        held_out: Whether the loss on held-out rows is needed (by quantized forms).

    Raises:
        UserError: Held-out rows are needed, and the run's data cannot be read.
    """
    limit = min(cfg.generation.max_new_tokens, MAX_NEW_TOKENS)
    runtime = PyTorchRuntime(model, codec.tokenizer, generation_config(model, codec, {"max_new_tokens": limit}))
    questions = sample_questions([question.node() for question in cfg.data.questions])
    contexts = [question.with_system(cfg.data.system).context for question in questions]
    prompts = [codec.prompt_ids(codec.template.render(context)) for context in contexts]
    answers = runtime.generate(prompts, limit)
    found = [
        ReferenceAnswer(context, prompt, answer, runtime.logits(prompt, answer))
        for context, prompt, answer in zip(contexts, prompts, answers, strict=True)
    ]
    split, rows = held_out_rows(cfg, codec) if held_out else ("", [])
    loss = mean_loss(runtime, rows) if rows else float("nan")
    return Reference(found, codec.stop_id, frozenset(stop_ids(model, codec)), rows, split, loss)


def held_out_rows(cfg: TrainConfig, codec: Codec, limit: int = HELD_OUT_ROWS) -> tuple[str, list[HeldOut]]:
    """The first rows of the run's test split (of the validation split without one), and the split's name.

    Raises:
        UserError: The data cannot be read, or all of it was trained on.
    """
    try:
        data = open_data(cfg.data)
        data.read()
        data.encode(codec)
    except UserError as error:
        raise UserError(
            f"quantize: needs held-out rows to compare the loss, and the run's data cannot be read ({error}); start in the "
            "folder of the training"
        ) from None
    rows = first_rows(data, limit, "test")
    if rows.split == "train":
        raise UserError(
            "quantize: needs held-out rows to compare the loss, and this run has no validation or test split"
        )
    return rows.split, [HeldOut(row.input_ids[: row.prompt_length], row.answer_labels) for row in rows.encoded]


def mean_loss(runtime: Runtime, rows: Sequence[HeldOut]) -> float:
    """Cross-entropy of the answers in nats per token, over all rows."""
    nats = sum(answer_loss(runtime, row.prompt, row.answer) for row in rows)
    return nats / sum(len(row.answer) for row in rows)
