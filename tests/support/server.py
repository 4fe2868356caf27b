"""A server over tiny models, in this process: requests go through a socket, as a client's do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from llmft.commands.serve import listening, server_of
from llmft.generation.generator import Generator
from llmft.serving.app import build
from llmft.serving.safety import Safety
from tests.conftest import composed, typed_config
from tests.integration.generation.test_generator import sharpened


class Served(NamedTuple):
    """Its address, and the models it serves."""

    url: str
    generators: dict[str, Generator]
    server: Any


def generator(name: str, **settings: Any) -> Generator:
    """A tiny model whose logits are far apart."""
    model, codec = sharpened(name, lambda *o: typed_config(composed(*o)))
    # tests ask it from their own thread too, and the server puts every module's mode back when it has answered
    return Generator(model.eval(), codec, {"max_new_tokens": 16, "batch_size": 8, "seed": 0, **settings})


@contextmanager
def serving(
    generators: dict[str, Generator],
    *,
    key: str | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
    safety: Safety | None = None,
    system: str | None = None,
    **limits: Any,
) -> Iterator[Served]:
    """These models, under the limits of ``conf/serve.yaml`` but for those given."""
    cfg = typed_config(composed(command="serve"), "serve").serve.replaced(limits)
    sock = listening("127.0.0.1", 0)
    app = build(cfg, generators, system, safety or Safety(), key, hosts)
    server = server_of(app, 5)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(f"http://127.0.0.1:{sock.getsockname()[1]}", generators, server)
    finally:
        server.should_exit = True
        thread.join()
        sock.close()
