"""The answers of an evaluation that is under way, so that one that was stopped does not generate them again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llmft.generation.answer_file import key_of
from llmft.generation.generator import Answer
from llmft.utils.files import complete_lines
from llmft.utils.text import json_line

NAME = "predictions.partial.jsonl"


class PartialAnswers:
    """Answers in ``predictions.partial.jsonl`` of a run; written after each batch, deleted with the complete evaluation.

    Each row has ``key``, a hash of model, generation settings and prompt ids, so that rows of other evaluations are ignored.

    Args:
        folder: The run directory.
        model: What identifies the trained weights, as JSON.
    """

    def __init__(self, folder: Path, model: Any) -> None:
        self.file, self.model = folder / NAME, model
        self.kept: dict[str, Answer] = {}
        for line in complete_lines(self.file):
            try:
                row = json.loads(line)
                answer = Answer(str(row["text"]), bool(row["ended"]), int(row["tokens"]), row.get("votes"))
                self.kept[str(row["key"])] = answer
            except (ValueError, TypeError, KeyError):  # a damaged row is generated again
                continue

    @classmethod
    def of_run(cls, folder: Path, record: Mapping[str, Any]) -> Self:
        """Those of a run's own model, whose weights its ``run.json`` identifies."""
        best = (record.get("metrics") or {}).get("best_step")
        return cls(folder, [record.get("started"), record.get("resumed"), best])

    def keys(self, which: str, settings: Any, prompts: Iterable[Sequence[int]]) -> list[str]:
        """The key of each prompt.

        Args:
            which: ``tuned``, ``base`` or ``few-shot base``.
            settings: Of the generation.
            prompts: Their ids.
        """
        return [key_of(self.model, which, settings, prompt) for prompt in prompts]

    def add(self, keys: Sequence[str], answers: Sequence[Answer]) -> None:
        """Append the answers of a batch; a run directory that cannot be written to keeps none."""
        rows = ({"key": key, **answer._asdict()} for key, answer in zip(keys, answers, strict=True))
        try:
            with self.file.open("a", encoding="utf-8") as out:
                out.writelines(json_line(row) + "\n" for row in rows)
        except OSError:
            return

    def remove(self) -> None:
        """Delete the file: all answers are in the evaluation."""
        try:
            self.file.unlink(missing_ok=True)
        except OSError:
            return
