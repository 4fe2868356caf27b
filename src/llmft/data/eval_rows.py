"""The examples of a split that are generated for and scored."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmft.config.schema.data import Data
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.data.preprocessing.arrow_store import Examples, Rows
from llmft.data.preprocessing.row_columns import hash_of, identity, normalized
from llmft.data.records import Example
from llmft.data.tokenization.codec import Codec, EncodedExample
from llmft.utils.errors import UserError


class EvalRows(NamedTuple):
    """Examples with their encoded rows, the ``split`` they come from, and the ``total`` number of its rows.

    ``in_train``: of each, whether its prompt is in train too; None if not known.
    ``identities`` are hashes of prompt and answer as the data has them, the same for every model.
    """

    split: str
    total: int
    examples: list[Example]
    encoded: list[EncodedExample]
    in_train: Sequence[bool | None]
    identities: Sequence[str] = ()

    def references(self, codec: Codec) -> list[str]:
        """The text of a perfect answer to each: the example's; with calls or reasoning, the template's text, decoded."""
        return [_reference(example, row, codec) for example, row in zip(self.examples, self.encoded, strict=True)]


def _reference(example: Example, row: EncodedExample, codec: Codec) -> str:
    if not (example.tool_calls or example.reasoning):
        return example.answer
    labels = row.answer_labels
    return codec.decode(labels[:-1] if labels[-1] in codec.stop_ids else labels)


def first_rows(data: InstructionDataModule, limit: int | None, split: str) -> EvalRows:
    """The first rows of a split; of ``val``, or else ``train``, if it is empty.

    Args:
        data: After ``setup``.
        limit: Maximum number of rows; None for all.
        split: ``train``, ``val`` or ``test``.
    """
    split = next(name for name in (split, "val", "train") if len(data.indices[name]))
    rows = data.indices[split][:limit]
    # of a conversation that became several rows, the last one: its answer is the example's
    last = dict(zip(data.row_columns["example"][rows].tolist(), rows.tolist(), strict=True))
    numbers = np.array([*last.values()], dtype=np.int64)
    examples, encoded = Examples(data.examples.table, np.array([*last])), Rows(data.table, numbers)
    leaked = data.is_in_train(numbers).tolist()
    identities = [f"{identity:016x}" for identity in data.row_columns["row"][numbers].view(np.uint64).tolist()]
    return EvalRows(split, len(data.indices[split]), list(examples), list(encoded), leaked, identities)


def in_train_of(config: Data, sha256: str | None, codec: Codec, examples: Sequence[Example]) -> list[bool | None]:
    """Whether the prompts of other examples are in the train split of a data set, except for case and white space.

    Args:
        config: The config of the data set.
        sha256: Its digest when it was trained on.
        codec: That it was trained with.
        examples: Of another file.

    Returns:
        None for each if that cannot be known: the data set is a stream, cannot be read, or has changed.
    """
    try:
        data = open_data(config)
        if config.streaming or data.source.sha256 != sha256:
            return [None] * len(examples)
        data.read()
        data.encode(codec)
    except UserError:
        return [None] * len(examples)
    hashes = [hash_of(normalized(identity(example.context, example.tools))) for example in examples]
    return np.isin(np.array(hashes, dtype=np.int64), data.row_columns["prompt_like"][data.indices["train"]]).tolist()
