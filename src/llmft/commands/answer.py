"""``answer``: inference with a run or a plain model, on one question, a file, or the built-in samples."""

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from llmft.config.schema import AnswerConfig
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

BATCHES = 4  # batches between two writes to the file; questions of similar length share a batch


def main(cfg: DictConfig) -> None:
    """Answer ``question``, every row of ``input``, or ``questions=samples``."""
    quiet()
    log_to(None)
    check(cfg, AnswerConfig)
    if sum(cfg[key] is not None for key in ("question", "questions", "input")) != 1:
        raise UserError('answer: pass one of question="...", input=FILE (- is standard input) and questions=samples')
    check_output(cfg.output)
    if cfg.output and user_path(cfg.output).suffix not in ENDINGS:
        raise UserError(f"output={cfg.output}: must end in {', '.join(ENDINGS)}")
    questions = _questions(cfg)
    if not all(turn.content.strip() for example in questions for turn in example.context if turn.role == "user"):
        raise UserError("question: must not be blank")
    generator, system = load_generator(cfg)
    examples = [example.with_system(cfg.system or system) for example in questions]
    codec = generator.codec
    generator.check_positions([codec.prompt_ids(codec.template.render(e.context, e.tools)) for e in examples])
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if cfg.output:
        _write_file(cfg, generator, examples, console)
        return
    for rows in _rows(cfg, generator, examples, 0):
        for row in rows:
            if cfg.format == "json":
                console.file.write(json_line(row) + "\n")
            else:
                console.print(printable(as_text(row, several=len(examples) > 1)))
        console.file.flush()


def _write_file(cfg: DictConfig, generator: Generator, examples: Sequence[Example], console: Console) -> None:
    """Write answers while they are generated; existing ones are kept."""
    model, settings = _model(cfg), _settings(generator)
    keys = [key_of(model, settings, cfg.compare, [*(t.message() for t in e.context), *e.tools]) for e in examples]
    bases = ("base_answer", "base_ended") if cfg.compare else ()
    file = AnswerFile(cfg.output, ("id", "question", "answer", "ended", *bases, "key"))
    done = file.finished(keys)
    if done:
        console.print(f"resuming: {done} of {len(examples)} answers exist")
    try:
        for rows in _rows(cfg, generator, examples, done):
            file.append([{**row, "key": key} for row, key in zip(rows, keys[done:], strict=False)])
            done += len(rows)
    except KeyboardInterrupt:
        if file.kind != ".txt":
            console.print(f"{done} of {len(examples)} answers are in {cfg.output}; the same command resumes")
        raise
    console.print(f"{len(examples)} answers: {cfg.output}")


def _rows(
    cfg: DictConfig, generator: Generator, examples: Sequence[Example], done: int
) -> Iterator[list[dict[str, Any]]]:
    """Rows of answers from question ``done`` on, ``BATCHES`` batches at a time."""
    base = load_base(cfg, generator) if cfg.compare else None
    size = generator.batch_size * BATCHES
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal or len(examples) <= size
    ) as progress:
        bar = progress.add_task("answering", total=len(examples), completed=done)
        for start in range(done - done % size, len(examples), size):  # the same batches as in an uninterrupted run
            chunk = examples[max(start, done) : start + size]
            rows = _generate(generator, chunk)
            if base:
                for row, other in zip(rows, _generate(base, chunk), strict=True):
                    row |= {"base_answer": other["answer"], "base_ended": other["ended"]}
            yield rows
            progress.advance(bar, len(chunk))


def _generate(generator: Generator, chunk: Sequence[Example]) -> list[dict[str, Any]]:
    answers = generator.answers([example.context for example in chunk], [example.tools for example in chunk])
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
    """What identifies a model: start and best step of a run, or path and prompt of a plain model."""
    if cfg.run is None:
        return [cfg.model.path, cfg.model.revision, cfg.model.gguf_file, OmegaConf.to_container(cfg.prompt)]
    record = read_record(open_run(cfg.run)[0])
    return [record.get("started"), record.get("resumed"), record.get("metrics", {}).get("best_step")]


def _settings(generator: Generator) -> dict[str, Any]:
    """The settings that change answers; the batch size does not."""
    return {key: value for key, value in generator.given.items() if key not in ("batch_size", "batch_tokens")}
