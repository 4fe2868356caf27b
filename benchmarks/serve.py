"""`serve` against plain `generate`, in the same run: time to first token, tokens per second, and the gain of continuous batching.

    python benchmarks/serve.py [--model smollm2_135m] [--clients 1 4 8] [--tokens 48] [--system 200] [--engine ctranslate2]

Prints one table; figures are medians of `--repeats`, and ratios are within one run, so that load on the machine affects both sides.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from openai import OpenAI

from llmft.commands.serve import listening, server_of
from llmft.config.paths import conf_dir
from llmft.config.schema import ServeConfig
from llmft.config.typed import typed
from llmft.data.records import Turn
from llmft.export.converted import load_converted
from llmft.generation.ctranslate2_decoder import open_converted
from llmft.generation.load import load_streaming
from llmft.serving.app import build
from llmft.serving.safety import Safety
from llmft.utils.logging import quiet

QUESTIONS = (
    "What is overfitting?",
    "Name three sorting algorithms and say how fast they are.",
    "Explain photosynthesis to a child.",
    "Why is the sky blue?",
    "What does a compiler do?",
    "Write a short poem about rain.",
    "How do vaccines work?",
    "What is a neural network made of?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--system", type=int, default=0, help="tokens of a system prompt that all clients send")
    parser.add_argument(
        "--engine", choices=("torch", "ctranslate2"), default="torch", help="served beside plain generate of torch"
    )
    parser.add_argument(
        "--converted", metavar="DIR", help="a folder of form=ctranslate2 of the same model, such as one of int8"
    )
    parser.add_argument("--flood", type=int, default=0, help="number of simultaneous clients, each with one question")
    options = parser.parse_args()
    quiet()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [f"model={options.model}", "hydra.mode=RUN", f"generation.max_new_tokens={options.tokens}",
                     f"serve.max_waiting={max(64, options.flood)}"]  # fmt: skip
        cfg = compose("serve", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    config = typed(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), ServeConfig).config
    generator, _ = load_streaming(config)
    where = next(generator.model.parameters()).device
    SYSTEM[:] = system_of(generator, options.system)
    print(f"{options.model} on {where}, {torch.get_num_threads()} threads, {options.tokens} tokens per answer")
    work = flood if options.flood else measure
    if options.engine == "ctranslate2":
        converted, _ = load_converted(config)
        if options.converted:
            converted = open_converted(Path(options.converted), generator.codec, generator.given)
        with_server(
            config, generator, lambda one: with_server(config, converted, lambda other: engines(options, one, other))
        )
        return
    with_server(config, generator, lambda port: work(options, generator, port))


def engines(options: argparse.Namespace, torch_port: int, converted_port: int) -> None:
    """Tokens per second of both engines, in turns."""
    clients = [
        OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600)
        for port in (torch_port, converted_port)
    ]
    print("clients   torch tok/s   ctranslate2 tok/s   ctranslate2 / torch")
    for number in options.clients:
        rounds = [[tokens_per_second(client, number) for client in clients] for _ in range(options.repeats)]
        one, other = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{number:7d}   {one:11.1f}   {other:17.1f}   {other / one:19.2f}", flush=True)


def with_server(cfg: ServeConfig, generator: Any, work: Callable[[int], None]) -> None:
    sock = listening("127.0.0.1", 0)
    app = build(cfg.serve, {"model": generator}, None, Safety(), None, [])
    server = server_of(app, 5)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        work(sock.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def measure(options: argparse.Namespace, generator: Any, port: int) -> None:
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600)
    first, plain_first = (
        median(options, lambda n: first_token(client, n)),
        median(options, lambda n: plain(generator, n, 1)[0]),
    )
    print(
        f"first token     serve {first * 1000:7.0f} ms   plain generate (prompt and one token) {plain_first * 1000:7.0f} ms"
    )
    rows = []
    for clients in options.clients:
        rounds = [
            (
                tokens_per_second(client, clients, first=8 + clients * n),  # questions that the server has not seen yet
                plain(generator, n, options.tokens)[1],
                plain_batch(generator, clients, options.tokens),
            )
            for n in range(options.repeats)
        ]
        rows.append([clients, *map(statistics.median, zip(*rounds, strict=True))])
    print("clients   serve tok/s   generate one by one tok/s   generate in one batch tok/s   serve / one by one")
    for clients, served, direct, batch in rows:
        print(f"{clients:7d}   {served:11.1f}   {direct:25.1f}   {batch:27.1f}   {served / direct:18.2f}")
    one_client = rows[0][1]
    print(json.dumps({"first_token_s": round(first, 3), "gain_over_one_client": round(rows[-1][1] / one_client, 2)}))


def flood(options: argparse.Namespace, generator: Any, port: int) -> None:
    """95th percentile latency of many clients, against the same answers generated in batches of 8, one after the other."""
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600)

    def one(number: int) -> float:
        begun = time.perf_counter()
        messages = messages_of(number)
        client.chat.completions.create(model="model", messages=messages)
        return time.perf_counter() - begun

    one(0)
    rounds = []
    for _ in range(options.repeats):
        with ThreadPoolExecutor(options.flood) as pool:
            latencies = sorted(pool.map(one, range(options.flood)))
        batch = timed(generator, range(8), options.tokens)[0]
        rounds.append((latencies[int(0.95 * (len(latencies) - 1))], batch * options.flood / 8))
    p95, sequential = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{options.flood} at once: p95 {p95:.2f} s; batches of 8 one after the other {sequential:.2f} s: {p95 / sequential:.2f}"
    )


def median(options: argparse.Namespace, work: Callable[[int], float]) -> float:
    work(0)  # warm-up
    return statistics.median(work(n) for n in range(options.repeats))


SYSTEM: list[Turn] = []


def system_of(generator: Any, tokens: int) -> list[Turn]:
    """A system turn of so many tokens, or none."""
    rules = "".join(
        f"Rule {number}: be brief, and never promise what item {number} of the list forbids. "
        for number in range(tokens)
    )
    ids = generator.codec.tokenizer(rules, add_special_tokens=False)["input_ids"][:tokens]
    return [Turn("system", generator.codec.tokenizer.decode(ids).strip())] if tokens else []


def asked(number: int) -> list[Turn]:
    return [*SYSTEM, Turn("user", question(number))]


def messages_of(number: int) -> Any:
    return [{"role": turn.role, "content": turn.content} for turn in asked(number)]


def question(number: int) -> str:
    again = f" ({number // len(QUESTIONS) + 1})" if number >= len(QUESTIONS) else ""
    return f"{QUESTIONS[number % len(QUESTIONS)]}{again}"


def first_token(client: OpenAI, number: int) -> float:
    begun = time.perf_counter()
    messages = messages_of(number)
    with client.chat.completions.create(model="model", messages=messages, stream=True) as stream:
        for event in stream:
            if event.choices and event.choices[0].delta.content:
                return time.perf_counter() - begun
    raise RuntimeError("no token came")


def tokens_per_second(client: OpenAI, clients: int, first: int = 0) -> float:
    """Tokens per second over all clients, each of which sends one question, numbered from ``first``."""

    def one(number: int) -> int:
        messages = messages_of(number)
        usage = client.chat.completions.create(model="model", messages=messages).usage
        assert usage
        return usage.completion_tokens

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        tokens = sum(pool.map(one, range(first, first + clients)))
    return tokens / (time.perf_counter() - begun)


def plain(generator: Any, number: int, tokens: int) -> tuple[float, float]:
    """Seconds and tokens per second of transformers' own generate for one question."""
    return timed(generator, [number], tokens)


def plain_batch(generator: Any, rows: int, tokens: int) -> float:
    return timed(generator, range(rows), tokens)[1]


def timed(generator: Any, questions: Sequence[int], tokens: int) -> tuple[float, float]:
    fixed = generator.with_settings(max_new_tokens=tokens, batch_size=len(questions))
    begun = time.perf_counter()
    found = fixed.answers([asked(number) for number in questions])
    seconds = time.perf_counter() - begun
    return seconds, sum(answer.tokens for answer in found) / seconds


if __name__ == "__main__":
    main()
