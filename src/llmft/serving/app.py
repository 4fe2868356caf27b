"""Build the ASGI application from models, limits, safety filter and API key."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmft.data.records import Turn
from llmft.generation.generator import Generator
from llmft.generation.prefix_cache import PrefixCache
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
    """The ASGI application, with its engine running.

    Args:
        limits: The ``serve`` keys.
        generators: Models by the name that clients use; the run's own first.
        system: System prompt of conversations that have none.
        safety: The safety filter.
        key: The API key, or None.
        hosts: Accepted host names; empty for all.
        notice: The notice of the data set, for the chat page.

    Raises:
        UserError: A model cannot be served under its settings.
    """
    decoders = {name: generator.stream_decoder() for name, generator in generators.items()}
    prefixes = PrefixCache(limits.prefix_cache_mib, "cpu")
    for decoder in decoders.values():
        decoder.remember(prefixes)
    for decoder in decoders.values():  # warm up: the first client does not wait for lazy imports
        prompt = decoder.codec.prompt_ids(decoder.codec.template.render([Turn("user", "Hi")]))
        decoder.run([decoder.stream(prompt, seed=0, limit=1)])
    metrics = Metrics(limits.max_batch)
    engine = Engine(decoders, limits.max_batch, limits.max_waiting, metrics.batch.observe)
    metrics.watch(lambda: len(engine.waiting), engine.busy)
    metrics.watch_prefixes(prefixes)
    builder = RequestBuilder(decoders, system, limits, safety)
    middleware = partial(
        SecurityMiddleware,
        key=key,
        hosts=hosts,
        origins=limits.origins,
        max_body_bytes=limits.max_body_bytes,
        body_seconds=limits.body_seconds,
        metrics=metrics,
    )
    return application(Api(builder, engine, limits, metrics, Page(generators, system, limits, notice)), middleware)
