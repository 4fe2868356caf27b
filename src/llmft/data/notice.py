"""Notices for users of a model that was trained on a data set."""

from llmft.config.schema.data import Data, MixData


def notices(data: Data) -> list[str]:
    """The ``notice`` of a data set; of a mix, also those of its sets.

    Args:
        data: The ``data`` config of a run.
    """
    parts = data.sets.values() if isinstance(data, MixData) else ()
    return [part.notice for part in (data, *parts) if part is not None and part.notice]
