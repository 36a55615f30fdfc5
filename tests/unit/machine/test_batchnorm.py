"""The distributed batch norm in one process: as exact as torch's own, and valid on CUDA, too.

tests/reference/test_ranks.py tests it in several processes, in float64.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from robustviews.machine import distributed
from robustviews.machine.batchnorm import SynchronisedBatchNorm, synchronise

CHANNELS = 8
SHAPES = {"flat": (64, CHANNELS), "contiguous": (16, CHANNELS, 9, 9)}
SHAPES["channels_last"] = SHAPES["contiguous"]


def there_and_back(norm, x, upstream):
    """Return output, gradients and running statistics of a batch norm, in float64."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(upstream)
    assert y.dtype == x.grad.dtype == x.dtype
    assert y.stride() == x.grad.stride() == x.stride()
    results = (y.detach(), x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers())
    return [tensor.double() for tensor in results]


def given(layout, *, mean=0.0, dtype=torch.float32):
    """Return an input, and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn((2, *SHAPES[layout]), dtype=torch.float64, generator=generator)
    both = ((x + mean).to(dtype), upstream.to(dtype))
    if layout == "channels_last":
        return [tensor.contiguous(memory_format=torch.channels_last) for tensor in both]
    return list(both)


def norms(layout, *, momentum=0.1):
    """Return torch's batch norm and ours, with the same weights."""
    kind = nn.BatchNorm1d if layout == "flat" else nn.BatchNorm2d
    theirs, copied = (kind(CHANNELS, momentum=momentum) for _ in range(2))
    for norm in (theirs, copied):
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-1, 2, CHANNELS))
            norm.bias.copy_(torch.linspace(3, 4, CHANNELS))
    return theirs, SynchronisedBatchNorm(copied)


@pytest.mark.parametrize("mean", [0.0, 10.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", SHAPES)
def test_it_is_as_exact_as_batch_norm_of_torch_if_the_mean_is_large(layout, dtype, mean):
    x, upstream = given(layout, mean=mean, dtype=dtype)
    theirs, ours = norms(layout)
    actual = there_and_back(ours, x, upstream)
    like = there_and_back(theirs, x, upstream)
    truth, _ = norms(layout)
    expected = there_and_back(truth.double(), x.double(), upstream.double())
    for mine, other, exact in zip(actual, like, expected, strict=True):
        size = exact.abs().max()
        # Float32 error of the difference of two numbers near `mean`.
        slack = (mean + 10) * torch.finfo(torch.float32).eps * 2 * size
        assert (mine - exact).abs().max() <= 2 * (other - exact).abs().max() + slack


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_running_statistics_equal_those_of_torch(momentum):
    theirs, ours = norms("flat", momentum=momentum)
    for norm in (theirs, ours):
        for scale in (1, 3):
            norm(given("flat", mean=2.0)[0] * scale)
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("layout", SHAPES)
def test_weights_without_requires_grad_get_no_gradient(layout):
    _, ours = norms(layout)
    ours.requires_grad_(False)
    x, upstream = given(layout)
    own = x.clone().requires_grad_()
    ours(own).backward(upstream)
    theirs, _ = norms(layout)
    expected = x.clone().requires_grad_()
    theirs(expected).backward(upstream)
    torch.testing.assert_close(own.grad, expected.grad, atol=1e-5, rtol=1e-5)
    assert ours.weight.grad is ours.bias.grad is None


class Listening(TorchDispatchMode):
    """Records the arguments of torch's backward pass of batch norm."""

    def __init__(self):
        super().__init__()
        self.given = []

    def __torch_dispatch__(self, function, _, arguments=(), options=None):
        if function is torch.ops.aten.native_batch_norm_backward.default:
            self.given.append(arguments)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("layout", SHAPES)
def test_backward_gives_both_pairs_of_statistics_since_cuda_and_cpu_read_different_ones(layout):
    x, upstream = given(layout, mean=3.0, dtype=torch.bfloat16)
    _, ours = norms(layout)
    y = ours(x.requires_grad_())
    with Listening() as heard:
        y.backward(upstream)
    [(d_y, inputs, weight, mean, variance, saved_mean, saved_inverse, train, eps, _)] = heard.given
    # torch, aten/src/ATen/native/cuda/Normalization.cu: "save_mean should always be defined".
    assert torch.equal(mean, saved_mean)
    torch.testing.assert_close(saved_inverse, (variance + eps).rsqrt())
    assert not train
    assert {tensor.dtype for tensor in (d_y, inputs, weight, mean, variance)} == {torch.float32}


def test_on_a_gpu_torch_s_own_batch_norm_uses_all_ranks(monkeypatch):
    class OnCuda(nn.Module):
        """A network whose parameters pretend to be on a GPU."""

        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

        def parameters(self, recurse=True):
            return iter([SimpleNamespace(is_cuda=True)])

    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    net = OnCuda()
    norm = net.part[1]
    synchronise(net)
    assert type(net.part[1]) is nn.SyncBatchNorm
    assert net.part[1].weight is norm.weight
    assert net.part[1].running_var is norm.running_var
