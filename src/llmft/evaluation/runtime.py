"""Evaluate an exported folder in a runtime other than PyTorch, on the same rows as the run."""

from typing import Any

from llmft.config.schema.evaluation import Evaluate
from llmft.data.datamodule import InstructionDataModule
from llmft.data.tokenization.codec import Codec
from llmft.evaluation import inference
from llmft.evaluation.evaluator import Evaluation
from llmft.evaluation.inference import RowResult
from llmft.generation.runtime_generator import RuntimeGenerator, check_dtype
from llmft.runtimes.loss import answer_loss
from llmft.utils.progress import ProgressLine


class RuntimeEvaluation(Evaluation):
    """Evaluation of a runtime; there is no base model in it.

    Args:
        settings: The ``evaluate`` keys.
        data: Encoded data module, by the codec of the run.
        generator: Generates the answers, and has the runtime.
        codec: Of the run.
        seed: Seed of the bootstrap.
        split: Split that the rows come from.
        objective: The key of the training.
        weights: The format of the runtime's weights: a quantization, or a dtype.
    """

    def __init__(
        self,
        settings: Evaluate,
        data: InstructionDataModule,
        generator: RuntimeGenerator,
        codec: Codec,
        *,
        seed: int,
        split: str,
        objective: str | None = None,
        weights: str = "float32",
    ) -> None:
        check_dtype({"dtype": settings.dtype}, "evaluate", generator.runtime.name)
        forward: Any = None
        runtime: Any = generator  # takes the place of a Generator
        super().__init__(settings, forward, data, runtime, seed=seed, split=split, objective=objective)
        self._codec, self.weights = codec, weights

    @property
    def codec(self) -> Codec:
        """The codec of the run."""
        return self._codec

    def dtype_name(self, device: Any) -> str:  # noqa: ARG002
        """The format of the runtime's weights."""
        return self.weights

    def _has_base(self) -> bool:
        return False

    def _run(self, generator: Any, device: Any, which: str = "tuned") -> list[RowResult]:  # noqa: ARG002 (runtimes choose their device)
        rows = self.rows.encoded
        prompts = [row.input_ids[: row.prompt_length] for row in rows]
        answers = inference.generate(generator, prompts, which, self.partial)
        results = []
        with ProgressLine("losses", len(rows), unit="rows", leave=False) as line:
            for row, prompt, answer in zip(rows, prompts, answers, strict=True):
                loss = answer_loss(generator.runtime, prompt, row.answer_labels)
                results.append(RowResult(answer, loss, len(row.answer_labels)))
                line.update(len(results))
        return results
