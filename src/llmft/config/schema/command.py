"""``Command``: the keys that every command has."""

from typing import Annotated, Any

from pydantic import Field

from llmft.config.schema.section import Section
from llmft.config.schema.types import Must


class Command(Section):
    """Keys of every command."""

    allow_targets: Annotated[list[Any], Must("a list of packages")] = Field(
        description="Command line only: packages whose classes a config may name, resolvers, trust_remote_code (SECURITY.md)."
    )
