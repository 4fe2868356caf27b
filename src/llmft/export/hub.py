"""A folder -> a model repository of the Hugging Face Hub."""

import os
from pathlib import Path

from llmft.utils.errors import UserError


def check(name: str) -> None:
    """Find out before any work that nothing can be pushed.

    Raises:
        UserError: There is no ``HF_TOKEN`` in the environment, or the Hub is switched off.
    """
    if not os.environ.get("HF_TOKEN"):
        raise UserError(
            f"hub={name}: needs a token that may write, in the environment variable HF_TOKEN (nowhere else)"
        )
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(f"hub={name}: HF_HUB_OFFLINE is set, so nothing is pushed; unset it")


def push(folder: Path, name: str, *, private: bool) -> str:
    """Make the repository if need be and upload all files in one commit; returns the commit's URL.

    Args:
        folder: What was exported.
        name: ``owner/name``.
        private: Whether a repository that is made now is for its owner alone; one that is there stays as it is.

    Raises:
        UserError: The Hub refused, or could not be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ["HF_TOKEN"])
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by llmft").commit_url
    except (
        Exception
    ) as error:  # of the Hub's client, of its HTTP library, of what checks the card: they have no common base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = " ".join(lines[:3]).replace(os.environ["HF_TOKEN"], "***")
        raise UserError(
            f"hub={name}: the Hub at {api.endpoint} did not take it: {told or type(error).__name__}"
        ) from None
