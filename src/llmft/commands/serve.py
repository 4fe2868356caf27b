"""``serve``: an OpenAI-compatible HTTP API and a chat page for a run or a plain model."""

import ipaddress
import logging
import os
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from llmft.config.schema import ServeConfig
from llmft.config.schema.serving import Serve
from llmft.config.validate import check
from llmft.data.notice import notices
from llmft.generation.generator import Generator
from llmft.generation.load import load_base, load_streaming
from llmft.runs.open import open_run
from llmft.runtimes.exported import open_exported
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to, quiet
from llmft.utils.signals import restored

log = logging.getLogger(__name__)
LOCALHOST = ("localhost", "127.0.0.1", "[::1]")


def main(cfg: DictConfig) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    quiet()
    log_to(None)
    config = check(cfg, ServeConfig)
    require("fastapi", "uvicorn", "prometheus_client")
    key = api_key(config.serve)
    with listening(config.serve.host, config.serve.port) as sock:
        generators, system, notice = load(config)
        serve(config, generators, system, notice, key, sock)


def require(*modules: str) -> None:
    """Check, before a model is loaded, that optional packages are installed.

    Raises:
        UserError: One is missing.
    """
    if missing := [module for module in modules if find_spec(module) is None]:
        raise UserError(f"serve: needs {', '.join(missing)}; pip install 'llmft[serve]'")


def api_key(settings: Serve) -> str | None:
    """The API key that clients must send, or None.

    Raises:
        UserError: The key is blank, or other machines could connect without one.
    """
    key = os.environ.get(settings.key_env)
    if key is not None and (not key.strip() or not key.isascii()):
        raise UserError(f"{settings.key_env}: is set, but blank or not ASCII; set it to a key, or unset it")
    if key is None and not loopback(settings.host) and not settings.allow_no_key:
        raise UserError(
            f"serve.host={settings.host}: other machines could connect without a key; set {settings.key_env} in the environment,"
            " or pass serve.allow_no_key=true"
        )
    return key and key.strip()


def loopback(host: str) -> bool:
    """Whether a host to bind to is only reachable from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A bound socket; it is bound before a model is loaded.

    Raises:
        UserError: The address cannot be bound.
    """
    sock = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        if sock:
            sock.close()
        raise UserError(
            f"serve.host={host} serve.port={port}: cannot listen there ({error.strerror}); port 0 picks a free one"
        ) from None
    return sock


def load(config: ServeConfig) -> tuple[dict[str, Generator], str | None, str | None]:
    """The models by the names that clients use (the run's own first), its system prompt, and the notice of its data set.

    Raises:
        UserError: The run or model does not exist.
    """
    tuned, system = _load_tuned(config)
    if config.run is None:
        return {config.serve.name or config.model.name: tuned}, config.system, None
    if exported := open_exported(config.run):
        return {config.serve.name or exported.folder.name: tuned}, config.system or system, exported.notice
    _, trained = open_run(config.run)
    name = config.serve.name or f"{trained.data.name}-{trained.model.name}-{trained.peft.name}"
    notice = " ".join(notices(trained.data)) or None
    if notice and not config.safety.notice:
        log.warning(
            "data=%s: %s Consider safety=simple with a notice of yours (docs/serve.md)", trained.data.name, notice
        )
    generators = {name: tuned}
    if config.serve.base and config.serve.engine == "torch":
        base = trained.model.name if trained.model.name != name else f"{trained.model.name}-base"
        try:
            generators[base] = load_base(config, tuned)
        except UserError as error:
            raise UserError(f"{error}; or do not serve the base model: serve.base=false") from None
    return generators, config.system or system, notice


def _load_tuned(config: ServeConfig) -> tuple[Generator, str | None]:
    if config.serve.engine == "torch":
        return load_streaming(config)
    from llmft.export.converted import load_converted  # start-up time: only this engine needs it

    return load_converted(config)


def serve(
    config: ServeConfig,
    generators: Mapping[str, Generator],
    system: str | None,
    notice: str | None,
    key: str | None,
    sock: socket.socket,
) -> None:
    """Handle requests until a signal stops the server."""
    from llmft.serving.app import build

    hosts = [*config.serve.hosts, *(LOCALHOST if loopback(config.serve.host) else ())]
    app = build(config.serve, generators, system, instantiate(config.safety.node()), key, hosts, notice)
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("%s at http://%s:%d%s", ", ".join(generators), shown, port, "" if key is None else " (with an API key)")
    log.info("Ctrl-C or SIGTERM stops the server")
    with restored():
        try:
            server_of(app, config.serve.shutdown_seconds).run(sockets=[sock])
        except KeyboardInterrupt:  # uvicorn shuts down, then sends the signal again
            log.info("stopped")


def server_of(app: Any, shutdown_seconds: int) -> Any:
    """A uvicorn server that logs nothing itself and waits for running answers at shutdown."""
    import uvicorn

    quiet: Any = {"log_config": None, "access_log": False, "server_header": False}
    return uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=shutdown_seconds, lifespan="on", **quiet))
