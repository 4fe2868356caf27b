"""Add a line for each export to ``run.json``, which the report shows."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from llmft.export.result import ExportedForm
from llmft.runs.record import read_record, write_record

log = logging.getLogger(__name__)


def add(run: Path, forms: Sequence[ExportedForm], to: str | None) -> None:
    """Add the exported forms to ``exports`` of a run's record; a run that cannot be written is left as it is.

    Args:
        run: The run directory.
        forms: One for each form.
        to: Where they were written, as given.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        {
            "form": one.passport.form,
            "dtype": one.passport.dtype,
            "quantize": one.passport.quantize,
            "status": one.passport.status,
            "runtime": one.passport.runtime,
            "difference": one.passport.difference,
            "to": to,
            "kept": bool(one.path or one.url),
            "time": now,
        }
        for one in forms
    ]
    try:
        record = read_record(run)
        write_record(run, {**record, "exports": [*(record.get("exports") or []), *lines]})
    except OSError as error:
        log.warning("run.json: the export is not recorded in it (%s)", error)
