"""``schema``: write JSON Schemas of the YAML files, for editors."""

from omegaconf import DictConfig

from llmft.config.json_schema import schemas, write
from llmft.config.schema import SchemaConfig
from llmft.config.validate import check
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to
from llmft.utils.paths import user_path


def main(cfg: DictConfig) -> None:
    """Write the schemas into the folder ``to``."""
    log_to(None)
    config = check(cfg, SchemaConfig)
    if config.to is None:
        raise UserError("schema: pass to=FOLDER")
    found = schemas()
    write(found, user_path(config.to))
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(f"{len(found)} JSON Schemas: {config.to}")
