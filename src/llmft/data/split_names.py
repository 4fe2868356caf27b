"""Names of train, validation and test set in published data sets."""

NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_named(value: object) -> str | None:
    """``train``, ``val`` or ``test``, if a value names one."""
    return NAMES.get(value.strip().casefold()) if isinstance(value, str) else None
