"""Result of an export: what was found of each form, and where it is."""

from pathlib import Path
from typing import NamedTuple

from llmft.export.passport import Passport
from llmft.utils.errors import UserError


class ExportedForm(NamedTuple):
    """One form of an export.

    Attributes:
        passport: What was found in its runtime.
        path: Folder or archive; None if it is only on the Hub, or was not kept.
        url: URL of the commit on the Hub, if pushed.
    """

    passport: Passport
    path: Path | None
    url: str | None = None


class Exported(NamedTuple):
    """Result of an export.

    Attributes:
        forms: One for each form, in the order of ``form``.
    """

    forms: tuple[ExportedForm, ...]

    @property
    def path(self) -> Path | None:
        """Folder or archive of the first form."""
        return self.forms[0].path

    @property
    def url(self) -> str | None:
        """URL of the commit on the Hub."""
        return self.forms[0].url

    @property
    def difference(self) -> float | None:
        """Largest absolute difference of a logit to the trained model, of the first form."""
        return self.forms[0].passport.difference


class FailedExportError(UserError):
    """A form failed its passport, or could not be checked and ``require_check`` is set.

    Args:
        message: What failed, and what was kept.
        done: All forms, with their passports.
    """

    def __init__(self, message: str, done: Exported) -> None:
        super().__init__(message)
        self.done = done
