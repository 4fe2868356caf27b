"""The chat page: one HTML file, and a Content-Security-Policy that allows only its own script."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from llmft.generation.generator import Generator


class Page:
    """The page and its settings.

    Args:
        generators: Models by the name that clients use; the run's own first.
        system: The run's system prompt.
        limits: The ``serve`` keys.
        notice: A sentence that is shown above the conversation.
    """

    def __init__(
        self, generators: Mapping[str, Generator], system: str | None, limits: Any, notice: str | None = None
    ) -> None:
        self.enabled = limits.page
        first = next(iter(generators.values()))
        own = first.settings
        sampled = bool(own.get("do_sample"))
        self.settings = {
            "models": list(generators),
            "single_turn": bool(first.model.config.is_encoder_decoder),
            "system": system,
            "own_system": first.codec.template.traits.own_system.strip(),  # which an empty field leaves in place
            "notice": notice,
            "max_answer_tokens": limits.max_answer_tokens,
            "defaults": {
                "temperature": own.get("temperature", 1.0) if sampled else 0,
                "top_p": own.get("top_p", 1.0) if sampled else 1,
                "max_tokens": min(own.get("max_new_tokens", limits.max_answer_tokens), limits.max_answer_tokens),
                "seed": None,
            },
        }

    @cached_property
    def html(self) -> str:
        """Content of the HTML file."""
        return Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    @cached_property
    def policy(self) -> str:
        """Content-Security-Policy: this script and style by their digests, and requests to this server."""
        script, style = (self._digest(tag) for tag in ("script", "style"))
        return (
            f"default-src 'none'; script-src '{script}'; style-src '{style}'; "
            "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def _digest(self, tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", self.html, re.DOTALL)
        assert found
        return f"sha256-{base64.b64encode(hashlib.sha256(found.group(1).encode()).digest()).decode()}"
