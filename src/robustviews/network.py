"""The network of a training: encoder, heads and teacher, as the losses of methods see them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustviews.encoder import Encoder
from robustviews.machine import runtime
from robustviews.machine.batchnorm import synchronise
from robustviews.optim import with_prefix

if TYPE_CHECKING:
    from robustviews.methods import Heads, Method

_PARTS = ("encoder", "projector", "predictor")


class Network(nn.Module):
    """The student (encoder, projector, predictor), its teacher, and the state of its method.

    The teacher is no submodule: attacks, which put a network into another mode or restore its
    buffers, do not reach it. Its batch norms are always in train mode and gather statistics of
    their own.

    Attributes:
        state, outputs, epoch, update: as in `methods.Net`.
    """

    def __init__(
        self, encoder: Encoder, heads: Heads, *, teacher: tuple[str, ...], state: dict[str, Tensor]
    ) -> None:
        """Join the parts of a training.

        Args:
            encoder: the student's encoder, trained in place.
            heads: new modules of the method.
            teacher: names of the parts that the teacher copies, in the order of their use.
            state: tensors of the method, by name.
        """
        super().__init__()
        self.encoder = encoder
        self.projector = heads.projector or nn.Identity()
        self.predictor = heads.predictor or nn.Identity()
        self.state, self.outputs = state, dict[str, Tensor]()
        self.epoch = self.update = 0
        copies = {part: copy.deepcopy(getattr(self, part)) for part in teacher}
        self._teacher = (nn.ModuleDict(copies).train().requires_grad_(False),)
        self._targets: tuple[Tensor, Tensor] | None = None  # of these views

    @property
    def teacher(self) -> nn.ModuleDict:
        """Parts of the teacher by name; empty without a teacher."""
        return self._teacher[0]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to projections (N, D), in float32 or wider."""
        return self._apply_head(self.projector, self.encoder(images))

    def embed(self, images: Tensor) -> Tensor:
        """Do as `forward`, but never through a compiled encoder, which has other shapes."""
        return self._apply_head(self.projector, self.encoder.forward(images))

    def predict(self, z: Tensor) -> Tensor:
        """Map projections (N, D) to predictions or scores, in float32 or wider."""
        return self._apply_head(self.predictor, z)

    def target(self, views: Tensor) -> Tensor:
        """Return the teacher's outputs (2, B, D) of the first two views; see `methods.Net`."""
        assert len(self.teacher) > 0, "the method declares no teacher"
        if self._targets is None or self._targets[0] is not views:
            with torch.no_grad():
                outputs = torch.stack([self._teach(view) for view in views[:2]])
            self._targets = views, outputs
        return self._targets[1]

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """Move the teacher's parameters to tau x teacher + (1 - tau) x student."""
        for part, module in self.teacher.items():
            pairs = zip(module.parameters(), getattr(self, part).parameters(), strict=True)
            for own, student in pairs:
                own.lerp_(student, 1 - tau)

    def synchronise(self) -> None:
        """Make every batch norm use all ranks."""
        synchronise(self)
        synchronise(self.teacher)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a saved training must hold of the network, by name."""
        found = {
            f"{name}.{key}": value
            for name, module in self._saved_parts()
            for key, value in module.state_dict().items()
        }
        return found | {f"method.{name}": value for name, value in self.state.items()}

    def restore_(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        for name, module in self._saved_parts():
            module.load_state_dict(with_prefix(f"{name}.", tensors), strict=True)
        for name, value in self.state.items():
            value.copy_(tensors[f"method.{name}"])

    def _saved_parts(self) -> list[tuple[str, nn.Module]]:
        return [*((part, getattr(self, part)) for part in _PARTS), ("teacher", self.teacher)]

    def _teach(self, images: Tensor) -> Tensor:
        x = images
        for part, module in self.teacher.items():
            x = module(x) if part == "encoder" else self._apply_head(module, x)
        return x

    def _apply_head(self, head: nn.Module, x: Tensor) -> Tensor:
        with runtime.autocast(self.encoder.precision, x.device):
            return runtime.widen(head(x))


def build_network(encoder: Encoder, method: Method, *, seed: int = 0) -> Network:
    """Return the network of a training, with new heads; the global generator is not changed.

    Args:
        encoder: the student's encoder on its device.
        method: decides heads, teacher and state.
        seed: seed of the heads.
    """
    with runtime.seeded(seed, "heads"):
        heads = method.heads(encoder)
    like = next(encoder.parameters())
    for head in heads:
        if head is not None:
            head.to(like.device, like.dtype)
    state = {
        name: value.to(like.device, like.dtype)
        for name, value in method.init_state(encoder).items()
    }
    return Network(encoder, heads, teacher=method.teacher, state=state)
