"""Whether ``tie_word_embeddings`` tells the truth about the files."""

import json

import pytest
import torch
from safetensors.torch import save_file

from llmft.export.forms.merged import tie_fault

WEIGHT = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("flag", "head", "fault"),
    [
        (True, None, None),
        (False, WEIGHT + 1, None),
        (False, WEIGHT, None),  # tied, and transformers 4 must not scale: written twice
        (True, WEIGHT, None),
        (True, WEIGHT + 1, "tie_word_embeddings is not false, but the files hold a head of their own"),
        (None, WEIGHT + 1, "tie_word_embeddings is not false, but the files hold a head of their own"),
        (False, None, "tie_word_embeddings is false, but the files hold no head"),
    ],
)
def test_the_flag_of_a_tied_head(flag, head, fault, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({} if flag is None else {"tie_word_embeddings": flag}))
    save_file({"shared.weight": WEIGHT}, tmp_path / "model-1.safetensors")
    if head is not None:
        save_file({"lm_head.weight": head}, tmp_path / "model-2.safetensors")
    assert tie_fault(tmp_path) == fault
