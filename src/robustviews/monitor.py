"""How a training goes, beside its loss: k-NN accuracy of features and spread of projections.

Losses of different methods are not comparable, and that of a collapsed network may look good.
"""

from __future__ import annotations

import contextlib
import logging

import torch
from torch import Tensor
from torch.nn import functional

from robustviews import augment
from robustviews.encoder import Encoder
from robustviews.machine import runtime
from robustviews.machine.feed import Feed
from robustviews.methods import Method
from robustviews.network import Network
from robustviews.regimes import attack_mode

log = logging.getLogger(__name__)

_MOST, _SHARE, _LEAST = 512, 8, 64  # images: an eighth of the training set, between these
_NEIGHBOURS, _TEMPERATURE = 20, 0.07  # Wu et al. 2018, with fewer neighbours for fewer images
_COLLAPSED = 0.1  # of the spread of random directions, 1 / sqrt(D)


class Monitor:
    """Measures a network after each pass, on a fixed choice of training images."""

    def __init__(self, rows: Feed, labels: Tensor, method: Method, *, size: int) -> None:
        """Choose the images.

        Args:
            rows: (N, 3, S, S) uint8, the training set.
            labels: (N,) int64.
            method: decides whose features are measured.
            size: side of the views in pixels.
        """
        count = min(_MOST, max(len(rows) // _SHARE, min(_LEAST, len(rows))))
        order = runtime.permutation(len(rows), "monitor")[:count]
        with contextlib.closing(rows.batches([order])) as batches:
            chosen = next(batches)[1]
        self._images = augment.to_float(chosen, size)
        self._labels = labels.to(chosen.device)[order.to(chosen.device)]
        self._method, self._collapsed = method, False

    @torch.no_grad()
    def __call__(self, net: Network) -> dict[str, float]:
        """Return `knn`, an accuracy, and `z_std`, unless the method is supervised.

        Features are those of a probe, projections those of the loss, with the batch norm of train
        mode. A network in train mode stays as it is. A warning reports that projections have
        collapsed.
        """
        encoder = net.teacher["encoder"] if self._method.evaluated == "teacher" else net.encoder
        assert isinstance(encoder, Encoder)
        with attack_mode(encoder, "eval"):
            h = encoder.represent(self._images, "backbone")
        measured = {"knn": neighbours_accuracy(h, self._labels)}
        if not self._method.supervised:
            with attack_mode(net, "frozen"):
                z = net.embed(self._images)
            measured["z_std"] = spread(z)
            self._warn(measured["z_std"], z.shape[1] ** -0.5)
        return measured

    def _warn(self, z_std: float, healthy: float) -> None:
        """Report a collapse once, until it is over."""
        collapsed = z_std < _COLLAPSED * healthy
        if collapsed and not self._collapsed:
            log.warning(
                "the projections have collapsed: z_std=%.2g, of spread ones about %.2g; lower "
                "optimizer.lr, or raise batch_size",
                z_std,
                healthy,
            )
        self._collapsed = collapsed


def neighbours_accuracy(h: Tensor, labels: Tensor) -> float:
    """Return the leave-one-out accuracy of weighted nearest neighbours.

    Args:
        h: (N, F) features.
        labels: (N,) int64.
    """
    unit = functional.normalize(h, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    near, which = cosine.topk(min(_NEIGHBOURS, len(h) - 1), dim=1)  # (N, k)
    votes = functional.one_hot(labels)[which] * (near / _TEMPERATURE).exp().unsqueeze(-1)
    return (votes.sum(dim=1).argmax(dim=1) == labels).double().mean().item()


def spread(z: Tensor) -> float:
    """Return the mean standard deviation of the dimensions of unit vectors.

    It is about 1 / sqrt(D) for projections z (N, D) in all directions, and 0 for equal ones.

    Source: Chen, He 2021 (SimSiam), section 4.1.
    """
    return functional.normalize(z, dim=1).std(dim=0).mean().item()
