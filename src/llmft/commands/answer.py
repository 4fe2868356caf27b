"""``answer``: inference with a run or a plain model, on one question, a file, or the built-in samples."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig

from llmft.config.redact import redact_argument
from llmft.config.schema import AnswerConfig
from llmft.config.typed_overrides import task_overrides
from llmft.config.validate import check
from llmft.data.records import Example, Turn
from llmft.generation.answer_file import ENDINGS, AnswerFile, as_text, check_output, key_of
from llmft.generation.generator import Answer, Generator
from llmft.generation.load import load_base, load_generator
from llmft.generation.questions import read_questions, sample_questions
from llmft.generation.runtime_generator import RuntimeGenerator
from llmft.runs.open import open_run
from llmft.runs.record import read_record
from llmft.runtimes.exported import open_exported
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to, quiet
from llmft.utils.paths import user_path
from llmft.utils.progress import ProgressLine
from llmft.utils.shell import command_line
from llmft.utils.text import json_line, printable

BATCHES = 4  # batches between two writes to the file; questions of similar length share a batch


def main(cfg: DictConfig) -> None:
    """Answer ``question``, every row of ``input``, or ``questions=samples``."""
    quiet()
    log_to(None)
    config = check(cfg, AnswerConfig)
    if sum(getattr(config, key) is not None for key in ("question", "questions", "input")) != 1:
        raise UserError('answer: pass one of question="...", input=FILE (- is standard input) and questions=samples')
    check_output(config.output)
    if config.output and user_path(config.output).suffix not in ENDINGS:
        raise UserError(f"output={config.output}: must end in {', '.join(ENDINGS)}")
    questions = _questions(config)
    if not all(turn.content.strip() for example in questions for turn in example.context if turn.role == "user"):
        raise UserError("question: must not be blank")
    generator, system = load_generator(config)
    examples = [example.with_system(config.system or system) for example in questions]
    prompts = generator.prompts([e.context for e in examples], [e.tools for e in examples])
    generator.check_positions(prompts)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if config.output:
        _write_file(config, generator, examples, prompts, console)
        return
    for rows in _rows(config, generator, examples, prompts, 0):
        for row in rows:
            if config.format == "json":
                console.file.write(json_line(row) + "\n")
            else:
                console.print(printable(as_text(row, several=len(examples) > 1)))
        console.file.flush()


def _write_file(
    config: AnswerConfig,
    generator: Generator | RuntimeGenerator,
    examples: Sequence[Example],
    prompts: Sequence[list[int]],
    console: Console,
) -> None:
    """Write answers while they are generated; existing ones are kept."""
    model, settings = _model(config), _settings(generator)
    keys = [key_of(model, settings, config.compare, [*(t.message() for t in e.context), *e.tools]) for e in examples]
    bases = ("base_answer", "base_ended") if config.compare else ()
    file = AnswerFile(str(config.output), ("id", "question", "answer", "ended", *bases, "key"))
    done = file.finished(keys)
    if done:
        console.print(f"resuming: {done} of {len(examples)} answers exist")
    try:
        for rows in _rows(config, generator, examples, prompts, done):
            file.append([{**row, "key": key} for row, key in zip(rows, keys[done:], strict=False)])
            done += len(rows)
    except KeyboardInterrupt as error:
        again = f"; to resume: {command_line('answer', map(redact_argument, task_overrides()))}"
        how = ", which cannot be resumed (.jsonl and .csv can)" if file.kind == ".txt" else again
        kept = f"{done} of {len(examples)} answers are in {config.output}"
        raise KeyboardInterrupt(f"interrupted, {kept}{how}") from error
    console.print(f"{len(examples)} answers: {config.output}")


def _rows(
    config: AnswerConfig,
    generator: Generator | RuntimeGenerator,
    examples: Sequence[Example],
    prompts: Sequence[list[int]],
    done: int,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of answers from question ``done`` on, ``BATCHES`` batches at a time."""
    base = load_base(config, generator).sharing(prompts) if config.compare else None
    generator = generator.sharing(prompts)
    size, each = generator.batch_size * BATCHES, 2 if base else 1
    total = len(examples) * each
    several = ProgressLine("answering", total, done * each, unit="answers", leave=False) if total > 1 else nullcontext()
    with several as line:

        def finished(rows: list[int], _: list[Answer]) -> None:
            if line:
                line.update(line.done + len(rows))

        for start in range(done - done % size, len(examples), size):  # the same batches as in an uninterrupted run
            chunk = slice(max(start, done), start + size)
            rows = _generate(generator, examples[chunk], prompts[chunk], finished)
            if base:
                for row, other in zip(rows, _generate(base, examples[chunk], prompts[chunk], finished), strict=True):
                    row |= {"base_answer": other["answer"], "base_ended": other["ended"]}
            yield rows


def _generate(
    generator: Generator | RuntimeGenerator,
    chunk: Sequence[Example],
    prompts: Sequence[list[int]],
    finished: Callable[[list[int], list[Answer]], None],
) -> list[dict[str, Any]]:
    answers = generator.continued(prompts, finished=finished)
    return [
        {
            "id": example.id,
            "question": example.context[-1].message()["content"],
            "answer": answer.text,
            "ended": answer.ended,
        }
        for example, answer in zip(chunk, answers, strict=True)
    ]


def _questions(config: AnswerConfig) -> list[Example]:
    if config.input is not None:
        return read_questions(config.input, config.input_format)
    if config.questions is not None:
        of_run = config.run is not None and open_exported(config.run) is None
        return sample_questions([q.node() for q in open_run(str(config.run))[1].data.questions] if of_run else ())
    return [Example((Turn("user", str(config.question)),), "")]


def _model(config: AnswerConfig) -> Any:
    """What identifies a model: start and best step of a run, or path and prompt of a plain model."""
    if config.run is None:
        return [config.model.path, config.model.revision, config.model.gguf_file, config.prompt.node()]
    if exported := open_exported(config.run):
        return exported.identity
    record = read_record(open_run(config.run)[0])
    return [record.get("started"), record.get("resumed"), record.get("metrics", {}).get("best_step")]


def _settings(generator: Generator | RuntimeGenerator) -> dict[str, Any]:
    """The settings that change answers; the batch size does not, nor does ``dtype=auto``, which older files do not have."""
    others = ("batch_size", "batch_tokens", *(("dtype",) if generator.given.get("dtype") == "auto" else ()))
    return {key: value for key, value in generator.given.items() if key not in others}
