"""Read rows from files, folders of shards, Hub data sets and URLs; a row's place is ``<file as given>:<1-based line or row>``."""

from llmft.data.sources.reader import ParsedRow, lines_of, read, read_file
from llmft.data.sources.resolve import HUB_ID, SAMPLES, Source, digest, find, find_held_out, found_again, joined

__all__ = [
    "HUB_ID",
    "SAMPLES",
    "ParsedRow",
    "Source",
    "digest",
    "find",
    "find_held_out",
    "found_again",
    "joined",
    "lines_of",
    "read",
    "read_file",
]
