"""The dtype of exported weights: ``dtype=auto`` is that of the base model as it was published."""

from llmft.models.backbone.open import Backbone
from llmft.utils.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")


def resolved(dtype: str, backbone: Backbone) -> str:
    """The dtype of the export.

    Args:
        dtype: The key ``dtype``.
        backbone: The base model; only its config is read.

    Raises:
        UserError: ``auto``, and the base is no longer there or its config has another dtype.
    """
    if dtype != "auto":
        return dtype
    try:
        found = backbone.config.dtype
    except UserError as error:
        raise UserError(
            f"dtype=auto: is the dtype of the base model, which cannot be read ({error}); pass dtype=float32"
        ) from None
    name = str(found or "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise UserError(f"dtype=auto: the base model is in {name}; pass one of dtype={', dtype='.join(DTYPES)}")
    return name
