"""What transformers asks of masks is answered without the device, and only there."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers.masking_utils

from llmft.models.attention import known_masks as module
from llmft.models.attention.known_masks import known_masks, known_padding

masking_utils: Any = transformers.masking_utils
NAMES = ("find_packed_sequence_indices", "_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa")
pytestmark = pytest.mark.skipif(not all(hasattr(masking_utils, name) for name in NAMES), reason="another transformers")


def batch(lengths, device="cuda", **more):
    return {"input_ids": SimpleNamespace(device=torch.device(device)), "layout": {"lengths": lengths}, **more}


def answers(padding):
    causal = masking_utils._ignore_causal_mask_sdpa(padding, 3, 3, 0, 0)
    return (
        masking_utils.find_packed_sequence_indices(None),
        causal,
        masking_utils._ignore_bidirectional_mask_sdpa(padding, 3),
    )


def test_padding_and_examples_are_known():
    padding = object()  # which nobody looks at
    before = [getattr(masking_utils, name) for name in NAMES]
    with known_masks(batch([[3], [3]]), encoder_decoder=False):
        assert answers(padding) == (None, True, True)
        assert not masking_utils._ignore_bidirectional_mask_sdpa(padding, 3, 2)  # a window of two hides something
    with known_masks(batch([[3], [2]]), encoder_decoder=False):
        assert answers(padding) == (None, False, False)
        assert answers(None) == (None, True, True)
    with known_masks(batch([[1, 2], [3]], rows="their numbers"), encoder_decoder=False):
        assert answers(padding) == ("their numbers", True, True)
    with known_masks(batch([[3], [2]]), encoder_decoder=True):  # the decoder of BART makes a mask of ones
        assert answers(padding) == (None, True, False)
    assert [getattr(masking_utils, name) for name in NAMES] == before


@pytest.mark.parametrize("given", [batch([[3]], "cpu"), batch([[3]], "meta"), batch([[3]]) | {"layout": {}}])
def test_nothing_changes_elsewhere(given):
    before = [getattr(masking_utils, name) for name in NAMES]
    with known_masks(given, encoder_decoder=False):
        assert [getattr(masking_utils, name) for name in NAMES] == before


def test_the_padding_of_prompts_is_known_in_the_thread_that_answers_them(monkeypatch):
    for name in NAMES:  # it stays installed
        monkeypatch.setattr(masking_utils, name, getattr(masking_utils, name))
    module._answer_for_each_thread.cache_clear()
    gpu, padding, hidden = torch.device("cuda"), object(), torch.tensor([[0, 1, 1]])

    def decides(mask):
        return masking_utils._ignore_causal_mask_sdpa(mask, 1, 3, 2, 0)

    with known_padding(torch.device("cpu"), full=True):
        assert not decides(hidden)
    with known_padding(gpu, full=True), ThreadPoolExecutor(1) as other:
        assert decides(padding)
        assert not masking_utils._ignore_causal_mask_sdpa(padding, 2, 3, 1, 0)  # a prompt behind a known prefix
        assert not other.submit(decides, hidden).result()
        with known_padding(gpu, full=False):
            assert not decides(padding)
            assert decides(None)
        assert decides(padding)
    assert not decides(hidden)
    module._answer_for_each_thread.cache_clear()
