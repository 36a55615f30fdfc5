"""Losses, as pure functions of projections z (V, B, D): V views of B images.

Every function returns a scalar to minimise. Projections must have unit norm. In distributed
training z is the share of this rank, and the scalar is the mean over this share. What the share is
compared with (the mean over views, other images) comes from all ranks.

Source: arXiv 2501.03507, sections 2 and 3, and its reference code (for the sign and scale of the
loss).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from robustviews.machine import distributed
from robustviews.machine.runtime import widen


def unit(z: Tensor) -> Tensor:
    """Scale projections (..., D) to unit norm."""
    return functional.normalize(z, dim=-1)


def whole(z: Tensor) -> Tensor:
    """Return projections (N, D) of the images of all ranks, from (B, D) of this rank's images."""
    return widen(distributed.gather(z))


def cosine(p: Tensor, z: Tensor) -> Tensor:
    """Return the mean cosine of vectors p and z (B, D) of the same images."""
    return functional.cosine_similarity(widen(p), widen(z), dim=1).mean()


def agreement(targets: Tensor, logs: Tensor) -> Tensor:
    """Return minus the cross-entropy of distributions and log-probabilities (B, K), in the mean."""
    return (targets * logs).sum(dim=-1).mean()


def nt_xent(
    z: Tensor,
    *,
    temperature: float = 0.07,
    base_temperature: float | None = None,
    with_self: bool = False,
) -> Tensor:
    """Contrast the partner of each embedding with all other embeddings of the batch.

    Args:
        z: (2, B, D) unit vectors; z[0, i] and z[1, i] are a pair.
        temperature: softness of the contrast; dot products are divided by it.
        base_temperature: if given, the loss is multiplied by temperature / base_temperature, as in
            the reference code (0.07 there, so that only other temperatures are affected).
        with_self: whether an embedding counts in its own denominator, as in the paper's sum.

    Returns:
        Cross-entropy of identifying the partner, mean over the 2B anchors.

    Raises:
        ValueError: z does not hold two views.

    Source: Chen et al. 2020, equation 1.
    """
    if z.dim() != 3 or z.shape[0] != 2:
        raise ValueError(f"nt_xent takes z of shape (2, B, D), found {tuple(z.shape)}")
    z = widen(z)
    anchors = z.flatten(0, 1)  # (2B, D)
    others = distributed.gather(z, dim=1).flatten(0, 1)  # (2N, D), N images of all ranks
    with torch.autocast(z.device.type, enabled=False):
        logits = anchors @ others.T / temperature  # (2B, 2N)
    numbers = torch.arange(len(others), device=z.device).view(2, -1)  # (2, N) by view and image
    first = distributed.rank() * z.shape[1]
    own = numbers[:, first : first + z.shape[1]]  # (2, B)
    if not with_self:
        logits = logits.masked_fill(numbers.flatten() == own.reshape(-1, 1), -torch.inf)
    loss = functional.cross_entropy(logits, own.flip(0).flatten())  # partner: the other view
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def invariance(z: Tensor, *, kind: Literal["cosine", "trace"] = "cosine") -> Tensor:
    """Score how little the views of an image agree with their mean.

    Args:
        z: (V, B, D) projections. The mean over views is not normalised again, and has gradient.
        kind: `cosine` takes the cosine with the mean, averaged over views and images (the code);
            `trace` is trace(Z_v^T Zbar), a sum over images of inner products, averaged over views
            (the paper).

    Returns:
        Minus the agreement.

    Source: arXiv 2501.03507 (the term D) for `trace`; its reference code for `cosine`.
    """
    z = widen(z)
    mean = distributed.mean(z.mean(dim=0, keepdim=True))  # (1, B, D), over views of all ranks
    if kind == "trace":
        return -(z * mean).sum(dim=(1, 2)).mean()
    return -functional.cosine_similarity(z, mean, dim=-1).mean()


def total_coding_rate(z: Tensor, *, eps: float = 0.2) -> Tensor:
    """Score how little the images of a batch spread out in each view.

    The determinant is that of the smaller Gram matrix; both are equal by Sylvester's identity:
    det(I_D + a Z^T Z) = det(I_B + a Z Z^T). It is computed in float32 or wider under any autocast,
    since the gradient near collapse is wrong in bf16.

    Args:
        z: (V, B, D) projections.
        eps: distortion, in place of the formula's eps squared (0.2 in the code, 0.2 ** 2 in the
            paper).

    Returns:
        Minus the mean over views of 1/2 logdet(I + D / (B eps) Z^T Z).

    Source: Yu et al. 2020, equation 1; Tong et al. 2023 (EMP-SSL), equation 2.
    """
    batch, dim = z.shape[1:]
    with torch.autocast(z.device.type, enabled=False):
        z = widen(z)
        rows = z if batch <= dim else z.mT  # (V, n, m), n = min(B, D)
        half_logdet: Tensor = _HalfLogdet.apply(  # type: ignore[no-untyped-call]
            rows, dim / (batch * eps)
        )  # (V,)
        return -half_logdet.mean()


class _HalfLogdet(torch.autograd.Function):
    """1/2 logdet(I + scale R R^T) of rows R (V, n, m): (V,).

    The gradient, scale (I + scale R R^T)^-1 R, is written out: half the work of backpropagation
    through the Gram matrix and its factor.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, scale: float) -> Tensor:  # noqa: ANN401  # torch's, untyped
        identity = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
        # Without error checks, which would wait for the device: a failure gives NaN.
        factor, _ = torch.linalg.cholesky_ex(identity + scale * (rows @ rows.mT))
        ctx.save_for_backward(rows, factor)
        ctx.scale = scale
        # 1/2 logdet = sum of the logarithms of the factor's diagonal
        half_logdet: Tensor = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return half_logdet

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        if torch.is_grad_enabled():  # the factor has no graph: the result would be wrong
            raise RuntimeError("the coding rate has no second derivative; drop create_graph=True")
        rows, factor = ctx.saved_tensors
        identity = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
        with torch.autocast(rows.device.type, enabled=False):
            root = torch.linalg.solve_triangular(factor, identity, upper=False)  # (V, n, n)
            inverse = root.mT @ root
            return ctx.scale * upstream.view(-1, 1, 1) * inverse @ rows, None
