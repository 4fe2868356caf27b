"""Print the result of a run: metrics before and after, a few generated answers, scores, and paths."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from llmft.config.swept import swept_keys
from llmft.data.records import Example
from llmft.generation.generator import Answer
from llmft.metrics.format import print_scores, print_verdict
from llmft.metrics.text_normalization import normalize
from llmft.report import curves
from llmft.report.best_step import best_step
from llmft.runs.directory import RunDirectory
from llmft.utils.console import Console
from llmft.utils.shell import argument
from llmft.utils.text import printable


def show(
    run: RunDirectory,
    metrics: dict[str, Any],
    questions: Sequence[Example],
    before: Sequence[Answer],
    after: Sequence[Answer],
    scores: dict[str, Any] | None,
    monitor: tuple[str, str],
    few_shot: Sequence[Answer] = (),
) -> None:
    """Print the summary; of a job of a sweep only its verdict and paths, as a table of all jobs follows.

    Args:
        run: The finished run's directory.
        metrics: ``before``, ``after`` (validation), ``steps`` and ``best_step``.
        questions: Test examples to show.
        before: The base model's answers to them; empty if there are none.
        after: The tuned model's answers to them.
        scores: The content of ``evaluation.json``; None if nothing was evaluated.
        monitor: The metric that selected the best checkpoint, and its mode.
        few_shot: The base model's answers to the test rows with training examples in its prompt; empty if there are none.
    """
    console = Console(highlight=False)
    if swept_keys():
        if scores:
            print_verdict(scores["verdict"], console)
        console.print(Text.assemble(("run directory: ", "bold"), str(run.path)), soft_wrap=True)
        return
    if metrics["after"]:
        console.print(_metrics_table(metrics, str(run.record["model"]["dtype"])))
    by_exact_match = ((scores or {}).get("primary") or {}).get("score") == "exact_match"
    for number, example in enumerate(questions):
        answers = {"base": before[number]} if before else {}
        answers |= {"few-shot": few_shot[number]} if number < len(few_shot) else {}
        console.print(_answers_table(example, answers | {"tuned": after[number]}, by_exact_match=by_exact_match))
    if scores:
        print_scores(scores, console)
    if best := best_step(curves.read_metrics(run.path / "metrics.csv"), *monitor):
        console.print(Text(best.sentence), soft_wrap=True)
    console.print(Text.assemble(("run directory: ", "bold"), str(run.path)), soft_wrap=True)
    if (run.path / "report.html").is_file():
        console.print(Text.assemble(("report: ", "bold"), str(run.path / "report.html")), soft_wrap=True)
    if run.model.is_dir():
        console.print(
            Text(f'generate: python -m llmft answer {argument("run", str(run.path))} question="..."'), soft_wrap=True
        )


def _metrics_table(metrics: dict[str, Any], dtype: str) -> Table:
    steps = f"before and after {metrics['steps']} steps (best: step {metrics['best_step']})"
    table = Table(title=f"validation in {dtype}, {steps}")
    table.add_column("metric")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for name, value in sorted(metrics["after"].items()):
        table.add_row(name, f"{metrics['before'][name]:.4f}" if name in metrics["before"] else "-", f"{value:.4f}")
    return table


def _answers_table(example: Example, answers: Mapping[str, Answer], *, by_exact_match: bool) -> Table:
    """A question with its answers; where exact match leads the verdict, each is marked as right or wrong."""
    table = Table(show_header=False, expand=True)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("text", ratio=1, overflow="fold")
    table.add_row("question", Text(printable(example.context[-1].message()["content"])))
    table.add_row("reference", Text(printable(example.answer)))
    for name, answer in answers.items():
        text = Text(printable(_text(answer)))
        if by_exact_match:
            is_right = normalize(answer.text) == normalize(example.answer)
            text.append("  right" if is_right else "  wrong", style="bold green" if is_right else "bold red")
        table.add_row(name, text)
    return table


def _text(answer: Answer) -> str:
    return answer.text if answer.ended else f"{answer.text} [cut at {answer.tokens} tokens]"
