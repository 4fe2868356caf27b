"""Paged moments on a CUDA device, of weights that are enough to page."""

import pytest
import torch

from llmft.models.optimizer import bnb_adamw

pytestmark = [pytest.mark.gpu, pytest.mark.cuda_only]


def made():
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator).cuda()) for shape in ((512, 512), (8, 8))]
    return parameters


def trained(optimizer, parameters, seeds):
    for seed in seeds:
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)).cuda()
        optimizer.step()
    torch.cuda.synchronize()


@pytest.mark.parametrize("bits", [8, 32])
def test_moments_are_paged_and_after_a_resume_too(bits, tmp_path):
    settings = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.999), "bits": bits, "paged": True, "fallback": False}
    expected, parameters = made(), made()
    straight = bnb_adamw(expected, **settings)
    trained(straight, expected, range(2))
    torch.save(
        {"optimizer": straight.state_dict(), "weights": [p.detach().cpu() for p in expected]}, tmp_path / "x.ckpt"
    )
    trained(straight, expected, range(2, 4))
    saved = torch.load(tmp_path / "x.ckpt", map_location="cpu", weights_only=True)
    for parameter, weight in zip(parameters, saved["weights"], strict=True):
        parameter.data.copy_(weight)
    resumed = bnb_adamw(parameters, **settings)
    resumed.load_state_dict(saved["optimizer"])
    before = torch.cuda.memory_allocated()
    trained(resumed, parameters, range(2, 4))
    moments = [resumed.state[p][name] for p in parameters for name in ("state1", "state2")]
    assert [getattr(moment, "is_paged", False) for moment in moments] == [True, True, False, False]
    assert not moments[0].is_cuda  # managed memory, which the GPU reads too
    assert torch.cuda.memory_allocated() - before < 512 * 512
    for ours, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
