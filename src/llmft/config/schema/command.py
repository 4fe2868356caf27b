"""``Command``: the keys that every command has."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from llmft.config.schema.section import Section
from llmft.config.schema.types import Must, Text


class Command(Section):
    """Keys of every command.

    Attributes:
        writes: Its keys that name what it writes to; a config file may not point them at any place (``config.write_paths``).
    """

    writes: ClassVar[tuple[str, ...]] = ()
    allow_targets: Annotated[list[Any], Must("a list of packages")] = Field(
        description="Command line only: packages whose classes a config may name, resolvers, trust_remote_code "
        "(docs/security.md)."
    )
    allow_writes: Annotated[list[Text], Must("a list of folders")] = Field(
        description="Command line only: folders that files of --config-dir, a stored run, callbacks and loggers may write to, "
        "in addition to outputs/ and the run directory (docs/security.md)."
    )
