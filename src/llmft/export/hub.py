"""Push a folder to a model repository on the Hugging Face Hub."""

import os
from pathlib import Path

from llmft.utils.errors import UserError


def check_access(name: str) -> None:
    """Check that pushing is possible, before any work.

    Raises:
        UserError: There is no ``HF_TOKEN`` in the environment, or the Hub is in offline mode.
    """
    if not os.environ.get("HF_TOKEN"):
        raise UserError(
            f"hub={name}: needs a token with write access in the environment variable HF_TOKEN (only there)"
        )
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(f"hub={name}: HF_HUB_OFFLINE is set, so nothing is pushed; unset it")


def push(folder: Path, name: str, *, private: bool) -> str:
    """Create the repository if it does not exist and upload all files in one commit; returns the commit's URL.

    Args:
        folder: The exported folder.
        name: ``owner/name``.
        private: Whether to create a private repository; an existing one is not changed.

    Raises:
        UserError: The Hub refused the upload, or could not be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ["HF_TOKEN"])
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by llmft").commit_url
    except Exception as error:  # errors of the Hub client, its HTTP library and its card validation have no common base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:3]).replace(os.environ["HF_TOKEN"], "***")
        raise UserError(
            f"hub={name}: upload to the Hub at {api.endpoint} failed: {reason or type(error).__name__}"
        ) from None
