"""Models, limits, filter and key -> the application."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmft.data.records import Turn
from llmft.generation.generator import Generator
from llmft.serving.chat_page import Page
from llmft.serving.engine import Engine
from llmft.serving.middleware import SecurityMiddleware
from llmft.serving.prometheus import Metrics
from llmft.serving.request_builder import RequestBuilder
from llmft.serving.routes import Api, application
from llmft.serving.safety import Safety


def build(
    limits: Any,
    generators: Mapping[str, Generator],
    system: str | None,
    safety: Safety,
    key: str | None,
    hosts: Sequence[str],
    notice: str | None = None,
) -> Any:
    """The application, with its engine running.

    Args:
        limits: The ``serve`` keys.
        generators: By the name that clients use; the first is the run's own.
        system: The system line of conversations that bring none.
        safety: The filter.
        key: The API key, or None.
        hosts: Names that it answers to; empty for all.
        notice: The data set's, for the chat page.

    Raises:
        UserError: A model cannot be served under its settings.
    """
    decoders = {name: generator.stream_decoder() for name, generator in generators.items()}
    for (
        decoder
    ) in decoders.values():  # what is imported and set up at the first token is not the first client's to wait for
        codec = decoder.codec
        decoder.run([decoder.stream(codec.prompt_ids(codec.template.render([Turn("user", "Hi")])), seed=0, limit=1)])
    metrics = Metrics(limits.max_batch)
    engine = Engine(decoders, limits.max_batch, limits.max_waiting, metrics.batch.observe)
    metrics.watch(lambda: len(engine.waiting), engine.busy)
    asking = RequestBuilder(decoders, system, limits, safety)
    gate = partial(
        SecurityMiddleware,
        key=key,
        hosts=hosts,
        origins=limits.origins,
        max_body_bytes=limits.max_body_bytes,
        body_seconds=limits.body_seconds,
        metrics=metrics,
    )
    return application(Api(asking, engine, limits, metrics, Page(generators, system, limits, notice)), gate)
