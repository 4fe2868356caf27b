"""The files of a data set: which they are, by what keys they are named, and how their rows become examples."""

from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any

from llmft.config.schema.data import Data, extra_val_names
from llmft.data.preprocessing.cache import code_fingerprint
from llmft.data.preprocessing.read_examples import ExampleReader
from llmft.data.preprocessing.split_keys import EXTRA, SPLITS, own_file_key
from llmft.data.records import Example, Row
from llmft.data.sources import Source, find, find_held_out, joined
from llmft.data.sources.file_format import FileFormat
from llmft.utils.errors import UserError


class DataFiles:
    """Finds the files of a data set and reads their rows.

    Args:
        config: The config of the data group; no file is looked for before it is used.

    Attributes:
        section: The section of its keys, for messages: ``data``, or of a set of a mix ``data.sets.NAME``.
    """

    section = "data"

    def __init__(self, config: Data) -> None:
        super().__init__()
        self.config, self.name, self.streaming = config, config.name, config.streaming

    @staticmethod
    @abstractmethod
    def to_example(row: Row) -> Example:
        """The example of one raw row.

        Raises:
            RowError: A field is missing or has an unexpected value.
        """

    @cached_property
    def source(self) -> Source:
        """All files of the data set: of ``data.path`` and those of ``held_out``, with their SHA-256."""
        return joined([*self.sources().values()])

    @cached_property
    def held_out(self) -> dict[str, Source]:
        """The files of ``data.val_path``, ``data.test_path`` and ``data.extra_val``, by their split (``val/NAME``).

        Raises:
            UserError: There is no such file.
        """
        paths = {"val": self.config.val_path, "test": self.config.test_path}
        paths |= {f"{EXTRA}{name}": path for name, path in sorted(self.config.extra_val.items())}
        found = {name: find_held_out(own_file_key(name), path) for name, path in paths.items() if path is not None}
        return {name: replace(source, layout=self.layout) for name, source in found.items()}

    @property
    def layout(self) -> FileFormat:
        """How all of its files are read, where their content is not to decide."""
        return FileFormat(self.config.encoding, self.config.delimiter, self.config.sheet, keys=self.section)

    @property
    def extra_val(self) -> tuple[str, ...]:
        """The validation sets of ``data.extra_val`` as splits, ``val/NAME``; of a mix, files of one name are one set."""
        return tuple(f"{EXTRA}{name}" for name in extra_val_names(self.config))

    def sources(self) -> dict[str, Source]:
        """The files by the key that names them, ``data.path`` first."""
        return {"data.path": self.main_source} | {own_file_key(name): part for name, part in self.held_out.items()}

    def digests(self) -> dict[str, str | None]:
        """The SHA-256 of each of ``sources``; None of a Hub data set."""
        return {key: source.sha256 for key, source in self.sources().items()}

    @cached_property
    def main_source(self) -> Source:
        """The files or the Hub data set of ``data.path``, with their SHA-256; found (and downloaded) on first use.

        Raises:
            UserError: There is no such file, or its SHA-256 differs.
        """
        config = self.config
        if config.path is None:
            raise UserError(f"data.path=null: {self.name} needs a file; data.path=sample for the shipped rows")
        source = find(
            config.path,
            self.name,
            sha256=config.sha256,
            revision=config.revision,
            subset=config.subset,
            hub_split=config.hub_split,
            streaming=config.streaming,
        )
        return replace(source, layout=self.layout)

    @cached_property
    def reader(self) -> ExampleReader:
        """Reads and validates the rows of ``source``."""
        config = self.config
        return ExampleReader(
            self.main_source,
            self.name,
            self.to_example,
            config.system,
            config.limit,
            config.invalid,
            config.duplicates,
            first_only=self.streaming,
            split_by="position" if self.streaming else config.split_by,  # HashSplit splits a stream
            coerce=config.coerce,
            section=self.section,
        )

    def readers(self) -> list[ExampleReader]:
        """The readers, in order: of ``data.path``, and of the files of ``held_out``; of all sets of a mix."""
        splits = (*SPLITS, *self.extra_val)
        own = [replace(self.reader, source=part, split=name, splits=splits) for name, part in self.held_out.items()]
        return [replace(self.reader, own_files=tuple(self.held_out)), *own]

    def fingerprint(self) -> dict[str, Any]:
        """Settings that ``to_example`` depends on, for the cache key; a data set with its own settings adds them."""
        return {"class": type(self).__qualname__, "code": code_fingerprint(type(self))}
