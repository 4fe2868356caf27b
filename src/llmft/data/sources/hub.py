"""Read the rows of a Hugging Face Hub data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmft.utils.errors import UserError


@dataclass(frozen=True)
class Hub:
    """One split of one subset of a Hub data set, at a revision; downloaded on first use."""

    id: str
    revision: str | None
    subset: str | None
    split: str
    streaming: bool = False

    @cached_property
    def _loaded(self) -> Any:
        import datasets

        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(
                self.id, self.subset, split=self.split, revision=self.revision, streaming=self.streaming
            )
        except Exception as error:  # offline, missing, gated and malformed data sets raise different types
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"data.path={self.id}: no such local file, and it could not be loaded from the Hub ({reason}). "
                "Offline: download the rows elsewhere and pass data.path=FILE.jsonl, or use data.path=sample."
            ) from None

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the split by ``datasets`` (it depends on the commit).

        Raises:
            UserError: It cannot be loaded.
        """
        known = self.revision if self.streaming else self._loaded._fingerprint  # a stream is not cached
        return f"{self.id} {self.subset} {self.split} {known}"

    def rows(self) -> Iterable[dict[str, Any]]:
        """The rows: downloaded one by one if streaming, else from the memory-mapped cache of ``datasets``.

        Raises:
            UserError: It cannot be loaded.
        """
        return self._loaded
