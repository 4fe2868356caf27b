"""The rows that ``evaluate run=RUN`` scores: the run's own, or those of another file."""

from pathlib import Path

from llmft.config.schema import EvaluateConfig, TrainConfig
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.data.eval_rows import EvalRows, in_train_of
from llmft.data.tokenization.codec import Codec
from llmft.runs.find import run_started
from llmft.runs.record import read_record
from llmft.runtimes.exported import ExportedFolder
from llmft.utils.errors import UserError


def run_of(config: EvaluateConfig, exported: ExportedFolder) -> str:
    """The run whose rows are scored.

    Raises:
        UserError: It is not in ``outputs/``, and ``rows_of`` does not name it.
    """
    if config.rows_of is not None:
        return config.rows_of
    found = run_started(exported.started) if exported.started else None
    if found is None:
        raise UserError(f"run={config.run}: is an exported folder, whose run is not in outputs/; pass rows_of=RUN")
    return str(found)


def rows_of(config: EvaluateConfig, folder: Path, trained: TrainConfig) -> InstructionDataModule:
    """The run's rows, split as in training, or all rows of another file.

    Raises:
        UserError: The rows do not exist, or have changed since the training.
    """
    if config.data.path is not None:
        split = {"train": None, "val": 0, "test": 0}
        other = {"path": config.data.path, "limit": config.data.limit, "split": split, "split_by": "position"}
        other |= {"val_path": None, "test_path": None, "extra_val": {}, "train_fraction": 1}
        trained = trained.replaced({f"data.{key}": value for key, value in other.items()})
    elif config.data.limit is not None:
        raise UserError(f"data.limit={config.data.limit}: needs data.path; use evaluate.rows for the run's own rows")
    try:
        data = open_data(trained.data)
        source = data.source
    except UserError as error:
        raise UserError(
            f"run={config.run}: its data cannot be read ({error}); start in the folder of the training, or pass data.path"
        ) from None
    before = (read_record(folder).get("data") or {}).get("sha256")
    if config.data.path is None and source.sha256 != before:
        raise UserError(
            f"run={config.run}: {source.given} has changed since the training, so test rows may have been trained on;"
            " restore the old file, or pass data.path to score other rows"
        )
    data.read()
    return data


def leaks_checked(config: EvaluateConfig, folder: Path, trained: TrainConfig, rows: EvalRows, codec: Codec) -> EvalRows:
    """The rows; those of another file with ``in_train``, whether the run was trained on their prompt."""
    if config.data.path is None:
        return rows
    sha256 = (read_record(folder).get("data") or {}).get("sha256")
    return rows._replace(in_train=in_train_of(trained.data, sha256, codec, rows.examples))
