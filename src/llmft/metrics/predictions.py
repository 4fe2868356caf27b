"""Read and write ``predictions.jsonl``: test examples with reference, answers of tuned and base model, and scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmft.data.records import Example, Row, RowError, checked_text, value_of
from llmft.data.sources import read_file
from llmft.metrics.metric import ScoredAnswer
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_open, atomic_write
from llmft.utils.json import finite
from llmft.utils.paths import user_path
from llmft.utils.text import json_line


@dataclass
class Prediction:
    """A test example with the answers of the models.

    Attributes:
        prompt: The decoded prompt.
        question: The last user turn, which a judge sees.
        ended: Whether the answer finished with EOS; None if not known.
        in_train: Whether the prompt is in train too; None if not known.
        nats: Cross-entropy of the reference under the model in nats, summed over ``supervised`` tokens.
        identity: Hash of prompt and answer as the data has them, the same for every model; "" if not known.
        cut: Whether ``nats`` are of a reference that was cut to its token budget.
        few_shot_answer: The base model's answer to a prompt that begins with training examples (``evaluate.few_shot``).
        scores: Scores of the answer by metric; ``base_scores`` those of the base model's answer.
    """

    id: str
    prompt: str
    reference: str
    answer: str
    base_answer: str | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    base_scores: dict[str, float | None] = field(default_factory=dict)
    question: str = ""
    place: str = ""
    ended: bool | None = None
    base_ended: bool | None = None
    supervised: int = 0
    nats: float | None = None
    base_nats: float | None = None
    in_train: bool | None = None
    identity: str = ""
    cut: bool = False
    few_shot_answer: str | None = None
    few_shot_ended: bool | None = None

    @property
    def tuned(self) -> ScoredAnswer:
        """The tuned model's answer, ready to be scored."""
        return ScoredAnswer(self.answer, self.reference, self.ended, self.nats, self.supervised)

    @property
    def base(self) -> ScoredAnswer:
        """The base model's answer, ready to be scored (empty if there is none)."""
        return ScoredAnswer(self.base_answer or "", self.reference, self.base_ended, self.base_nats, self.supervised)


def save(file: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON object per line, atomically."""
    with atomic_open(file) as out:
        for prediction in predictions:
            out.write(json_line(finite(asdict(prediction))) + "\n")


def load(path: str) -> list[Prediction]:
    """Load ``predictions.jsonl``, or rows with ``instruction``, ``input``, ``output`` and ``model_response``.

    Raises:
        UserError: The file does not exist or has invalid rows; names each with file and line.
    """
    file = user_path(path)
    if not file.is_file() or file.suffix not in (".json", ".jsonl"):
        raise UserError(f"input={path}: must be an existing .jsonl or .json file of predictions")
    found, faults = [], []
    for number, located in enumerate(read_file(path, file), start=1):
        try:
            if located.fault:
                raise RowError("row", located.fault)
            found.append(_parsed(located.row, str(number), located.place))
        except RowError as error:
            faults.append(f"{located.place}: {error}")
    if faults:
        raise UserError.from_faults(f"input={path}", faults)
    return found


def save_responses(file: Path, examples: Sequence[Example], answers: Sequence[str]) -> None:
    """Write a JSON list of ``instruction``, ``input``, ``output`` and ``model_response``, as the Alpaca experiment does."""
    rows = [
        {
            "instruction": e.context[-1].content,
            "input": e.context[-1].input,
            "output": e.answer,
            "model_response": answer,
        }
        for e, answer in zip(examples, answers, strict=True)
    ]
    atomic_write(file, json.dumps(rows, indent=4, ensure_ascii=False) + "\n")


def _parsed(row: Row, number: str, place: str) -> Prediction:
    names = (
        ("output", "model_response")
        if isinstance(row, Mapping) and "model_response" in row
        else ("reference", "answer")
    )
    reference, answer = (checked_text(value_of(row, name), name, blank=True) for name in names)
    texts = {
        name: checked_text(row.get(name) or "", name, blank=True)
        for name in ("prompt", "question", "instruction", "input")
    }
    base = row.get("base_answer")
    numbers: dict[str, Any] = {name: _number(row, name) for name in ("nats", "base_nats", "supervised")}
    return Prediction(
        id=str(row.get("id") or number),
        prompt=texts["prompt"],
        reference=reference,
        answer=answer,
        base_answer=None if base is None else checked_text(base, "base_answer", blank=True),
        question=texts["question"]
        or "\n\n".join(filter(None, (texts["instruction"], texts["input"])))
        or texts["prompt"],
        place=place,
        ended=_flag(row, "ended"),
        base_ended=_flag(row, "base_ended"),
        nats=numbers["nats"],
        base_nats=numbers["base_nats"],
        supervised=int(numbers["supervised"] or 0),
        in_train=_flag(row, "in_train"),
        identity=checked_text(row.get("identity") or "", "identity", blank=True),
        cut=bool(_flag(row, "cut")),
    )


def _flag(row: Row, name: str) -> bool | None:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise RowError(name, f"must be true, false or null, got {value!r}")
    return value


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300):
        raise RowError(name, f"must be a number of at least 0 or null, got {value!r}")
    return value
