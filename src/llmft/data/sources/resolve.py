"""Resolve ``data.path``: the shipped sample, files, a Hub data set or a URL."""

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from llmft.data.sources.content import content_kind
from llmft.data.sources.decompress import KINDS, WHOLE, kind
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.hub import Hub
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import unresolved

SAMPLES = Path(__file__).parents[2] / "samples"
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
URL = re.compile(r"^[a-z]+://", re.IGNORECASE)
TEXTS = [kind for kind in KINDS if kind not in WHOLE]
ENDINGS = f"{', '.join(TEXTS)} (each also .gz or .zst), {' or '.join(WHOLE)}"


class SourceFile(NamedTuple):
    """A file, and its name in the places of its rows (as the user wrote it)."""

    given: str
    file: Path


@dataclass(frozen=True)
class Source:
    """The files or the Hub data set of a data set.

    Attributes:
        given: ``data.path`` as the user wrote it, with its interpolations.
        parts: The files, in order; empty for a Hub data set.
        sha256: Digest of the file; of several files, the digest of their digests and names.
        hub: The Hub data set, if it is one.
        layout: How its files are read, where their content is not to decide.
    """

    given: str
    parts: tuple[SourceFile, ...] = ()
    sha256: str | None = None
    hub: Hub | None = None
    layout: FileFormat = field(default_factory=FileFormat)


def find(
    path: str | Sequence[str],
    name: str,
    *,
    sha256: str | None = None,
    revision: str | None = None,
    subset: str | None = None,
    hub_split: str = "train",
    streaming: bool = False,
) -> Source:
    """Resolve ``data.path``; a URL is downloaded.

    Args:
        path: ``sample``, a file, a folder, a pattern with ``*``, a list of files, an https URL or a Hub data set id.
        name: Name of the data set, for its shipped sample.
        sha256: Expected digest of the file; required for a URL, here or as ``#sha256=...`` after it.
        revision: Branch, tag or commit of a Hub data set.
        subset: Subset of a Hub data set.
        hub_split: Split of a Hub data set that is read (``data.split`` splits it further).
        streaming: Whether a Hub data set is streamed, without a copy on disk.

    Raises:
        UserError: There is no such file, folder or sample, or its format is not supported.
    """
    if parts := local_files(path):
        return _checked(_of_files(path, parts), sha256)
    assert isinstance(path, str)
    if path == "sample":
        file = sample_of(name)
        return Source(f"sample:{file.name}", (SourceFile(f"sample:{file.name}", file),), digest(file))
    if URL.match(path):
        from llmft.data.sources.download import fetch  # http and ssl

        url, _, digest_of_url = path.partition("#sha256=")
        file = fetch(url, sha256 or digest_of_url or None)
        return Source(unresolved(url), (SourceFile(file.name, file),), sha256 or digest_of_url)
    return Source(unresolved(path), hub=Hub(path, revision, subset, hub_split, streaming))


def joined(sources: Sequence[Source]) -> Source:
    """Several sources as one, with a digest of their digests; a single one as it is."""
    if len(sources) == 1:
        return sources[0]
    digests = [source.sha256 for source in sources]
    whole = hashlib.sha256("\n".join(map(str, digests)).encode()).hexdigest() if all(digests) else None
    return Source(" + ".join(s.given for s in sources), tuple(part for s in sources for part in s.parts), whole)


def sample_of(name: str, key: str = "data.path") -> Path:
    """The shipped sample of a data set.

    Args:
        name: Of the data set.
        key: The key that asks for it, for errors.

    Raises:
        UserError: There is none.
    """
    found = sorted(SAMPLES.glob(f"{name}.json*"))
    if not found:
        raise UserError(f"{key}=sample: no sample is shipped for data={name}; pass {key}=FILE")
    return found[0]


def local_files(path: str | Sequence[str], key: str = "data.path") -> list[SourceFile]:
    """The files of ``data.path``, none of them read; empty for the shipped sample, a URL and a Hub data set.

    Args:
        path: Of files.
        key: The key that has this path, for errors.

    Raises:
        UserError: There is no such file or folder, or its format is not supported.
    """
    if not isinstance(path, str):
        return [part for entry in path for part in _files(entry, key)]
    if path == "sample" or URL.match(path):
        return []
    if HUB_ID.match(path) and not user_path(path).exists() and kind(Path(path)) is None:
        return []
    return _files(path, key)


def held_out_files(key: str, path: str | Sequence[str]) -> list[SourceFile]:
    """The files of ``data.val_path``, ``data.test_path`` or ``data.extra_val``, none of them read.

    Raises:
        UserError: There is no such file; a URL and a Hub data set are none.
    """
    if not (parts := local_files(path, key)):
        raise UserError(f"{key}={path}: must be files, no URL, no Hub data set and no shipped sample")
    return parts


def find_held_out(key: str, path: str | Sequence[str]) -> Source:
    """The files of ``data.val_path``, ``data.test_path`` or ``data.extra_val``, with their SHA-256.

    Raises:
        UserError: As ``held_out_files``.
    """
    return _of_files(path, held_out_files(key, path))


def _of_files(path: str | Sequence[str], parts: Sequence[SourceFile]) -> Source:
    return Source(unresolved(as_given(path)), tuple(parts), digest_of(parts))


def as_given(path: str | Sequence[str]) -> str:
    """``data.path`` in a line: a list of files in brackets."""
    return path if isinstance(path, str) else f"[{', '.join(path)}]"


def found_again(path: str, began: Path, sha256: str | None) -> str:
    """``data.path`` of a run that is resumed, perhaps in another working directory; the file's digest decides.

    Args:
        path: As the run has it, or as the user gave it now.
        began: The working directory where the run began.
        sha256: Digest of the run's data; None if it has none.

    Raises:
        UserError: There is no such file, here or there.
    """
    here, there = user_path(path), began / user_path(path)
    if path == "sample" or URL.match(path) or here.is_absolute() or glob.has_magic(path) or here.absolute() == there:
        return path
    if here.exists() and (not sha256 or not there.is_file() or not here.is_file() or digest(here) == sha256):
        return path
    if there.exists():
        return str(there)
    if not here.exists() and kind(here) is not None:
        raise UserError(
            f"data.path={path}: no such file (looked in {Path.cwd()}, and in {began}, where the run began); "
            "pass data.path=FILE, the same file wherever it is now"
        )
    return path


def _files(path: str, key: str) -> list[SourceFile]:
    file = user_path(path)
    if file.is_file():
        if kind(file) is None and content_kind(file) is None:
            raise UserError(f"{key}={path}: a file must end in {ENDINGS}, got {file.suffix or 'no ending'!r}")
        return [SourceFile(unresolved(path), file)]
    if file.is_dir():
        inside = [
            SourceFile(unresolved(f"{path.rstrip('/')}/{f.name}"), f)
            for f in sorted(file.iterdir())
            if f.is_file() and kind(f)
        ]
        if not inside:
            raise UserError(f"{key}={path}: the folder holds no file that ends in {ENDINGS}")
        return inside
    if glob.has_magic(path):
        found = [SourceFile(unresolved(name), Path(name)) for name in sorted(glob.glob(str(file), recursive=True))]  # noqa: PTH207 (as the user wrote it)
        found = [part for part in found if part.file.is_file() and kind(part.file)]
        if found:
            return found
        raise UserError(f"{key}={path}: no file that ends in {ENDINGS} matches (looked in {Path.cwd()})")
    sample = "; or data.path=sample for the shipped rows" if key == "data.path" else ""
    raise UserError(f"{key}={path}: no such file (looked in {Path.cwd()}){sample}")


def _checked(source: Source, sha256: str | None) -> Source:
    if sha256 and sha256 != source.sha256:
        raise UserError(f"data.path={source.given}: has the SHA-256 {source.sha256}, but data.sha256 is {sha256}")
    return source


def digest_of(parts: Sequence[SourceFile]) -> str:
    """SHA-256 of a file, or of the digests and names of several."""
    if len(parts) == 1:
        return digest(parts[0].file)
    listed = "".join(f"{digest(part.file)}  {part.file.name}\n" for part in parts)
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
