"""A data set of the Hugging Face Hub -> rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmft.utils.errors import UserError


@dataclass(frozen=True)
class Hub:
    """One split of one subset of a Hub data set, at a revision; fetched when it is first needed."""

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
        except Exception as error:  # offline, missing, gated and malformed all arrive as different types
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"data.path={self.id}: no such local file, and the Hub did not give it ({reason}). "
                "Offline: download the rows elsewhere and pass data.path=FILE.jsonl, or use data.path=sample."
            ) from None

    @property
    def fingerprint(self) -> str:
        """What changes with the rows: ``datasets``' own fingerprint of the split (it knows the commit).

        Raises:
            UserError: The Hub does not give it.
        """
        known = self.revision if self.streaming else self._loaded._fingerprint  # what is streamed is not kept either
        return f"{self.id} {self.subset} {self.split} {known}"

    def rows(self) -> Iterable[dict[str, Any]]:
        """The rows: as they are downloaded where they are streamed, else from the memory-mapped copy that ``datasets`` keeps.

        Raises:
            UserError: The Hub does not give it.
        """
        return self._loaded
