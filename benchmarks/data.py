"""Cost of data preparation: memory, speed against the bare tokenizer, a cached start, malformed lines. Prints a table.

    python benchmarks/data.py [rows=1000000] [model=smollm2_135m] [folder=DIR]

The rows are generated here, in OpenOrca's format: one of 17 system prompts, a question, a response, with word frequencies like those of
English (Zipf). Every stage runs in a process of its own; memory is the peak proportional set size (shared pages counted once) of that
process and its children, and the largest resident set of one of them.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

WORDS = 30_000
ROUNDS = 5
SAMPLE = 20_000  # rows on which the bare tokenizer is timed
MIB = 2**20


def make(file: Path, rows: int, *, bad_every: int = 0) -> None:
    """Write rows; with ``bad_every``, every N-th line is malformed, in one of four ways in turn."""
    draw = random.Random(7)
    syllables = [
        "ba",
        "con",
        "der",
        "ing",
        "ton",
        "ly",
        "pre",
        "ra",
        "st",
        "un",
        "ver",
        "ment",
        "al",
        "is",
        "o",
        "qui",
        "the",
    ]
    words = ["".join(draw.choices(syllables, k=draw.choice((1, 1, 2, 2, 3)))) for _ in range(WORDS)]
    weights = [1 / (n + 3) for n in range(WORDS)]
    stock = draw.choices(words, weights, k=2_000_000)
    systems = ["", *(" ".join(stock[n * 30 : n * 30 + 25]) for n in range(16))]
    broken = ['{"id": ', "[]", '{"id": "x"}', '{"id": "\\ud800", "system_prompt": "", "question": "q", "response": 1}']

    def text(mean: float) -> str:
        size = max(3, int(draw.lognormvariate(mean, 0.6)))
        start = draw.randrange(len(stock) - size)
        return " ".join(stock[start : start + size]).capitalize() + "."

    with file.open("w", encoding="utf-8") as handle:
        for n in range(1, rows + 1):
            if bad_every and n % bad_every == 0:
                handle.write(broken[(n // bad_every) % len(broken)] + "\n")
                continue
            row = {
                "id": f"cot.{n}",
                "system_prompt": draw.choice(systems),
                "question": text(4.2),
                "response": text(4.0),
            }
            handle.write(json.dumps(row) + "\n")


class Memory:
    """Peak memory of this process and its children inside the context, in MiB."""

    def __enter__(self) -> "Memory":
        self.pss = self.rss = 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while not self.stopped.wait(1):  # reading smaps walks all pages, which slows down what is measured
            found = [memory for process in [me, *me.children(recursive=True)] if (memory := _rollup(process.pid))]
            self.pss = max(self.pss, sum(memory["Pss:"] for memory in found) / 2**10)
            self.rss = max(self.rss, *(memory["Rss:"] / 2**10 for memory in found))


def _rollup(pid: int) -> dict[str, int] | None:
    """Memory of a process in KiB; None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    return {name: int(size) for name, size, *_ in map(str.split, lines)}


def parts(model: str, *overrides: str):
    """A data module and the codec of a model, as ``train`` builds them."""
    from hydra import compose, initialize_config_dir

    from llmft.config.paths import conf_dir
    from llmft.config.schema import TrainConfig
    from llmft.config.typed import typed
    from llmft.data.datamodule import open_data
    from llmft.models.backbone.open import Backbone
    from llmft.utils.logging import quiet

    quiet()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = typed(compose("train", overrides=[f"model={model}", "data=openorca", *overrides]), TrainConfig).config
    return partial(open_data, cfg.data), Backbone.open(cfg).codec


def first_batch(data) -> float:
    started = time.perf_counter()
    next(iter(data.train_dataloader()))
    return time.perf_counter() - started


def prepare(model: str, *overrides: str) -> dict[str, float]:
    """A first start: read, tokenize, first batch."""
    factory, codec = parts(model, *overrides)
    with Memory() as memory:
        started = time.perf_counter()
        data = factory()
        data.read()
        read = time.perf_counter() - started
        data.encode(codec)
        encoded = time.perf_counter() - started - read
        first = first_batch(data)
    tokens = int(data.row_columns["ids"].sum())
    peaks = {"pss": memory.pss, "rss": memory.rss}
    return {"read": read, "encode": encoded, "first": first, "tokens": tokens, "kept": data.row_counts.kept, **peaks}


def speed(model: str, path: str) -> dict[str, float]:
    """Rows per second of tokenization, on the rows that the bare tokenizer gets."""
    factory, codec = parts(model, path, f"data.limit={SAMPLE}", "data.cache=off")
    data = factory()
    data.read()
    started = time.perf_counter()
    data.encode(codec)
    return {"rows_per_second": SAMPLE / (time.perf_counter() - started)}


def again(model: str, *overrides: str) -> dict[str, float]:
    """A second start, from the cache: from the config to the first batch (libraries and tokenizer already loaded)."""
    factory, codec = parts(model, *overrides)
    with Memory() as memory:
        started = time.perf_counter()
        data = factory()
        data.read()
        data.encode(codec)
        first_batch(data)
        took = time.perf_counter() - started
    return {"again": took, "pss": memory.pss}


def streamed(model: str, *overrides: str) -> dict[str, float]:
    """Streaming: time from the config to the first batch, and memory until ``SAMPLE`` rows have been read."""
    factory, codec = parts(model, "data.streaming=true", "trainer.max_steps=1", *overrides)
    with Memory() as memory:
        started = time.perf_counter()
        data = factory()
        data.read()
        data.encode(codec)
        loader = iter(data.train_dataloader())
        next(loader)
        first = time.perf_counter() - started
        assert data.stream is not None
        while sum(tally.examples for tally in data.stream.tallies) < SAMPLE:
            next(loader)
    return {"first": first, "pss": memory.pss}


def bare(model: str, path: str) -> dict[str, float]:
    """Rows per second of ``tokenizer(list)`` on the same texts, on all cores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    factory, codec = parts(model, path, f"data.limit={SAMPLE}", "data.cache=off")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    data = factory()
    data.read()
    texts = [codec.template.render(e.context).followed_by(e.answer).text for e in data.examples]
    started, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), 1000):
        codec.tokenizer(texts[start : start + 1000])
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"rows_per_second": len(texts) / took, "rows_per_cpu_second": len(texts) / cpu}


def broken(model: str, *overrides: str) -> dict[str, object]:
    """The places that are reported for a file with bad lines, in one pass."""
    factory, _ = parts(model, "data.invalid=drop", "data.cache=off", *overrides)
    data = factory()
    started = time.perf_counter()
    data.read()
    took = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        data.row_counts.write_rejected(Path(folder) / "r.jsonl")
        lines = [json.loads(line) for line in (Path(folder) / "r.jsonl").read_text().splitlines()]
    places = [int(line["place"].rpartition(":")[2]) for line in lines]
    return {"places": places, "read": data.row_counts.read, "examples": len(data.examples), "seconds": took}


STAGES = {stage.__name__: stage for stage in (prepare, again, streamed, bare, speed, broken)}


def stage(name: str, *arguments: str) -> dict:
    """Run a stage in a process of its own."""
    command = [sys.executable, __file__, name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(rows: int = 1_000_000, model: str = "smollm2_135m", folder: str = "") -> None:
    """Measure, and print the table."""
    work = Path(tempfile.mkdtemp(prefix="llmft-bench-", dir=folder or None))
    console, found = Console(), {}
    for count in (rows // 10, rows):
        file = work / f"{count}.jsonl"
        make(file, count)
        given = (model, f"data.path={file}", f"data.cache={work / 'cache'}")
        found[count] = stage("prepare", *given)
        found[count] |= {"again": stage("again", *given)["again"], "size": file.stat().st_size}
        console.print(f"{count:,} rows, {file.stat().st_size / MIB:,.0f} MiB: {found[count]}")
    stream = stage("streamed", model, f"data.path={work / f'{rows}.jsonl'}")
    # in turns, so that other load on the machine affects both
    rounds = [
        [stage(name, model, f"data.path={file}")["rows_per_second"] for name in ("bare", "speed")]
        for _ in range(ROUNDS)
    ]
    simple, ours = (statistics.harmonic_mean(column) for column in zip(*rounds, strict=True))
    shares = sorted(mine / other for other, mine in rounds)
    bad = work / "bad.jsonl"
    make(bad, rows // 10, bad_every=1000)
    lines = stage("broken", model, f"data.path={bad}")
    small, large = found[rows // 10], found[rows]
    growth = large["pss"] / small["pss"] - 1
    right = lines["places"] == list(range(1000, rows // 10 + 1, 1000))
    table = Table("what", "measured", "bar", "", title=f"{rows:,} rows, {model}, {len(os.sched_getaffinity(0))} cores")

    def row(what: str, measured: str, bar: str, met: bool) -> None:
        table.add_row(what, measured, bar, "met" if met else "missed")

    row("peak memory, all processes", f"{large['pss']:,.0f} MiB", "under 1,536 MiB", large["pss"] < 1536)
    row(f"its growth from {rows // 10:,} rows", f"{growth:+.1%}", "under 10 %", growth < 0.1)
    row(f"tokenization, rows per second ({ROUNDS} rounds)", f"{ours:,.0f}", f"bare: {simple:,.0f}", met=True)
    ratio = f"{ours / simple:.0%} ({shares[0]:.0%} to {shares[-1]:.0%})"
    row("tokenization against tokenizer(list)", ratio, "80 % or more", ours >= 0.8 * simple)
    row("second start to the first batch", f"{large['again']:.2f} s", "under 3 s", large["again"] < 3)
    row("streaming: to the first batch", f"{stream['first']:.2f} s", "under 5 s", stream["first"] < 5)
    row("streaming: peak memory", f"{stream['pss']:,.0f} MiB", "under 1,536 MiB", stream["pss"] < 1536)
    row(
        f"bad lines among {rows // 10:,}, one pass",
        f"{len(lines['places'])} in {lines['seconds']:.1f} s",
        "all, by line",
        right,
    )
    kept = lines["read"] == lines["examples"] + len(lines["places"])
    row(
        "rows read = kept + dropped",
        f"{lines['read']:,} = {lines['examples']:,} + {len(lines['places'])}",
        "equal",
        kept,
    )
    console.print(table)
    console.print(
        f"first start: {large['read']:.0f} s reading, {large['encode']:.0f} s tokenizing, {large['tokens']:,} tokens"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in STAGES:
        sys.stdout.write(json.dumps(STAGES[sys.argv[1]](*sys.argv[2:])) + "\n")
    else:
        options = dict(argument.split("=", 1) for argument in sys.argv[1:])
        main(int(options.get("rows", 1_000_000)), options.get("model", "smollm2_135m"), options.get("folder", ""))
