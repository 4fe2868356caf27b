"""Sentence and choices of every key, for the completion.

They are kept in the cache folder, so that pydantic is imported only when the schema has changed.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from llmft.config.help.catalog import Catalog
from llmft.utils import json as json_file
from llmft.utils.cache import cache_root
from llmft.utils.errors import UserError

NAME = "completion.json"
SCHEMA = Path(__file__).parents[1] / "schema"
Index = dict[str, dict[str, tuple[str, list[str]]]]


def index(catalog: Catalog) -> Index:
    """Sentence and choices of each key, by command."""
    digest = _digest(catalog.roots[0])
    with suppress(UserError, OSError, ValueError, KeyError, TypeError):
        found = json.loads((cache_root() / NAME).read_text(encoding="utf-8"))
        if found["digest"] == digest:
            return found["keys"]
    from llmft.config.help.facts import all_facts  # start-up time: pydantic

    keys = all_facts(Catalog(catalog.roots[:1]))
    with suppress(UserError, OSError):  # no home, a full disk, no permission: the next Tab takes as long
        file = cache_root() / NAME
        file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write(file, {"digest": digest, "keys": keys})
    return keys


def _digest(conf: Path) -> str:
    """Changes when a file of the schema or of ``conf/`` does."""
    files = sorted([*SCHEMA.glob("*.py"), *conf.rglob("*.yaml")])
    stats = [(str(file), stat.st_mtime_ns, stat.st_size) for file in files for stat in (file.stat(),)]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
