"""Notices for users of a model that was trained on a data set."""

from omegaconf import DictConfig


def notices(data: DictConfig) -> list[str]:
    """The ``notice`` of a data set; of a mix, also those of its sets.

    Args:
        data: The ``data`` config of a run.
    """
    sets = [data, *(part for part in (data.get("sets") or {}).values() if part is not None)]
    return [part.notice for part in sets if part.notice]
