"""Write a run's ``report.html`` (self-contained, without scripts) and ``report/`` with figures and tables."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from llmft.config.metric_names import SCORE_GROUPS
from llmft.config.schema.evaluation import Report
from llmft.report import content, curves, figures
from llmft.report.best_step import BestStep, best_step
from llmft.report.curves import Series
from llmft.report.figures import Figure
from llmft.runs import read
from llmft.utils import csv as csv_files
from llmft.utils import files
from llmft.utils.errors import UserError
from llmft.utils.text import printable

log = logging.getLogger(__name__)


def write_report(run: Path, settings: Report) -> Path:
    """Write a run's report; works for failed runs too.

    Args:
        run: The run directory.
        settings: The ``report`` keys.

    Returns:
        Path of ``report.html``.

    Raises:
        UserError: There is no run, or the reference curve cannot be read.
    """
    files = read.load(run)
    found, best, drawn = run_curves(run, files, settings.reference_curve)
    histogram = (files["record"].get("data") or {}).get("lengths")
    lengths = figures.lengths(histogram) if histogram else None
    compared = figures.differences(files["evaluation"]["scores"]) if files["evaluation"] else None
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    curves.write_csv_files(
        {name: series for name, series in found.items() if name.partition("/")[0] not in SCORE_GROUPS.values()}, folder
    )
    if files["evaluation"]:
        _write_scores(files["evaluation"]["scores"], folder / "scores.csv")
    shown = [figure for figure in (*drawn, lengths, compared) if figure]
    for figure in shown:
        figure.png(folder / f"{figure.name}.png")
    page = content.page_context(run, files, best, settings)
    page |= {"loss": next((figure for figure in drawn if figure.name == "loss"), None)}
    page |= {
        "curves": [figure for figure in drawn if figure.name != "loss"],
        "lengths": lengths,
        "differences": compared,
    }
    return render(run / "report.html", "run.html", page | {"contents": content.contents(page)})


def run_curves(
    run: Path, files: Mapping[str, Any], reference: str | None = None
) -> tuple[dict[str, Series], BestStep | None, list[Figure]]:
    """The series of a run, when its validation was best, and the figures of both.

    Args:
        run: The run directory.
        files: Its files, as ``runs.read.load`` returns them.
        reference: As ``report.reference_curve``; None for the one in its config.

    Raises:
        UserError: A file cannot be read.
    """
    found = curves.with_perplexity(curves.read_run(run))
    best = best_step(found, *curves.checkpoint_monitor(files["config"]))
    curve = reference or content.config_reference_curve(files)
    published = curves.reference_curve(curve, content.steps_per_epoch(files))
    return found, best, figures.curves(found, published, best)


def write_or_warn(run: Path, settings: Report) -> None:
    """``write_report``, but errors are only logged, so that a finished training does not fail because of its report."""
    try:
        write_report(run, settings)
    except Exception as error:
        expected = isinstance(error, UserError | OSError)  # anything else is a bug, and needs its traceback
        log.warning("report.html was not written (%s); retry with `report run=%s`", error, run, exc_info=not expected)


def write_if_outdated(run: Path, settings: Report) -> None:
    """Write the report of a finished run if it is missing or older than ``run.json``."""
    page = run / "report.html"
    if settings.write and not (page.exists() and page.stat().st_mtime >= (run / "run.json").stat().st_mtime):
        write_or_warn(run, settings)


def render(file: Path, template: str, page: Mapping[str, Any]) -> Path:
    """Render a template with autoescaping and write it atomically; returns ``file``."""
    files.atomic_write(file, rendered(template, page), errors="replace")
    return file


def rendered(template: str, page: Mapping[str, Any]) -> str:
    """The text of a template with autoescaping."""
    environment = Environment(
        loader=PackageLoader("llmft.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template(template).render(**page)


def _write_scores(scores: Mapping[str, Any], file: Path) -> None:
    columns = ("base", "base_interval", "tuned", "tuned_interval", "difference", "difference_interval", "verdict")
    rows = [
        [name, *(" ".join(map(str, v)) if isinstance(v := entry.get(c), list) else v for c in columns)]
        for name, entry in scores.items()
    ]
    csv_files.write(file, [["score", *columns], *rows])


def _printable_text(value: Any) -> Any:
    """Remove control characters and bidirectional overrides from text."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _figure(figure: Figure) -> Markup:
    """Embed the SVG without escaping; matplotlib escapes the text in it."""
    caption = Markup("<figcaption>{}</figcaption>").format(figure.title)
    hidden = Markup('<p class="hidden">{}</p>').format(figure.alt)
    drawn = Markup(figure.svg())  # noqa: S704 (matplotlib escapes; tests/unit/report/test_content.py puts a script into every text)
    return Markup('<figure class="{}">{}{}{}</figure>').format(figure.name, caption, drawn, hidden)
