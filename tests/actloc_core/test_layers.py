"""The MLP that a CPU computes in slices is the plain one."""

import pytest
import torch
import torch.nn.functional as F

from actloc_core.backbones.layers import Mlp


def plain(mlp, x):
    return mlp.fc2(F.gelu(mlp.fc1(x)))


@pytest.mark.parametrize("tokens", [1, 4000, 20000])  # 8192 rows a slice at this width: 1, 1 and 5 slices
def test_sliced_mlp_and_its_gradients_equal_the_plain_ones(tokens):
    torch.manual_seed(0)
    mlp = Mlp(64, 3).double()
    x = torch.randn(2, tokens, 64, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(2, tokens, 3, dtype=torch.float64)
    weights = [x, *mlp.parameters()]
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), plain(mlp, x))
    ours, theirs = mlp(x), plain(mlp, x)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, weights, pull), torch.autograd.grad(theirs, weights, pull), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_the_path_of_compiled_and_autocast_models_gives_the_same():
    torch.manual_seed(0)
    mlp, x = Mlp(8).train(), torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.float16, enabled=True):
        half = mlp(x)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), mlp(x), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(mlp._narrow(mlp.fc1(x)), mlp(x))
