"""``answer``: ask a run (or a plain model) one question, a file of them, or the built-in samples."""

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from llmft.config.validate import check
from llmft.data.records import Example, Turn
from llmft.generation.answer_file import ENDINGS, AnswerFile, as_text, check_output, key_of
from llmft.generation.generator import Generator
from llmft.generation.load import load_base, load_generator
from llmft.generation.questions import read_questions, sample_questions
from llmft.runs.open import open_run
from llmft.runs.record import read_record
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to, quiet
from llmft.utils.paths import user_path
from llmft.utils.text import json_line, printable

BATCHES = 4  # are asked between two writes; within them questions of like length share a batch


def main(cfg: DictConfig) -> None:
    """Answer ``question``, every row of ``input``, or ``questions=samples``."""
    quiet()
    log_to(None)
    check(cfg)
    if sum(cfg[key] is not None for key in ("question", "questions", "input")) != 1:
        raise UserError('answer: pass one of question="...", input=FILE (- is standard input) and questions=samples')
    check_output(cfg.output)
    if cfg.output and user_path(cfg.output).suffix not in ENDINGS:
        raise UserError(f"output={cfg.output}: must end in {', '.join(ENDINGS)}")
    questions = _questions(cfg)
    if not all(turn.content.strip() for example in questions for turn in example.context):
        raise UserError("question: must not be blank")
    generator, system = load_generator(cfg)
    asked = [example.with_system(cfg.system or system) for example in questions]
    generator.check_positions([generator.codec.prompt_ids(generator.codec.template.render(e.context)) for e in asked])
    tell = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if cfg.output:
        _into_file(cfg, generator, asked, tell)
        return
    for rows in _answered(cfg, generator, asked, 0):
        for row in rows:
            if cfg.format == "json":
                tell.file.write(json_line(row) + "\n")
            else:
                tell.print(printable(as_text(row, several=len(asked) > 1)))
        tell.file.flush()


def _into_file(cfg: DictConfig, generator: Generator, asked: Sequence[Example], tell: Console) -> None:
    """Write answers as they come; those that are there are not asked again."""
    keys = [key_of(_model(cfg), _settings(generator), cfg.compare, [t.message() for t in e.context]) for e in asked]
    bases = ("base_answer", "base_ended") if cfg.compare else ()
    file = AnswerFile(cfg.output, ("id", "question", "answer", "ended", *bases, "key"))
    done = file.finished(keys)
    if done:
        tell.print(f"{done} of {len(asked)} were answered before")
    try:
        for rows in _answered(cfg, generator, asked, done):
            file.append([{**row, "key": key} for row, key in zip(rows, keys[done:], strict=False)])
            done += len(rows)
    except KeyboardInterrupt:
        if file.kind != ".txt":
            tell.print(f"{done} of {len(asked)} answers are in {cfg.output}; the same command goes on")
        raise
    tell.print(f"{len(asked)} answers: {cfg.output}")


def _answered(
    cfg: DictConfig, generator: Generator, asked: Sequence[Example], done: int
) -> Iterator[list[dict[str, Any]]]:
    """Rows of answers, some batches at a time, from question ``done`` on."""
    base = load_base(cfg, generator) if cfg.compare else None
    size = generator.batch_size * BATCHES
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal or len(asked) <= size) as progress:
        bar = progress.add_task("answering", total=len(asked), completed=done)
        for start in range(done - done % size, len(asked), size):  # the same batches as in an uninterrupted run
            chunk = asked[max(start, done) : start + size]
            rows = _ask(generator, chunk)
            if base:
                for row, other in zip(rows, _ask(base, chunk), strict=True):
                    row |= {"base_answer": other["answer"], "base_ended": other["ended"]}
            yield rows
            progress.advance(bar, len(chunk))


def _ask(generator: Generator, chunk: Sequence[Example]) -> list[dict[str, Any]]:
    answers = generator.answers([example.context for example in chunk])
    return [
        {
            "id": example.id,
            "question": example.context[-1].message()["content"],
            "answer": answer.text,
            "ended": answer.ended,
        }
        for example, answer in zip(chunk, answers, strict=True)
    ]


def _questions(cfg: DictConfig) -> list[Example]:
    if cfg.input is not None:
        return read_questions(cfg.input, cfg.input_format)
    if cfg.questions is not None:
        return sample_questions(open_run(cfg.run)[1].data.questions if cfg.run else ())
    return [Example((Turn("user", str(cfg.question)),), "")]


def _model(cfg: DictConfig) -> Any:
    """What tells one model from another: of a run its start and steps, of a plain model its path."""
    if cfg.run is None:
        return [cfg.model.path, cfg.model.revision, cfg.model.gguf_file, OmegaConf.to_container(cfg.prompt)]
    record = read_record(open_run(cfg.run)[0])
    return [record.get("started"), record.get("resumed"), record.get("metrics", {}).get("best_step")]


def _settings(generator: Generator) -> dict[str, Any]:
    """What changes answers; how many share a batch does not."""
    return {key: value for key, value in generator.given.items() if key not in ("batch_size", "batch_tokens")}
