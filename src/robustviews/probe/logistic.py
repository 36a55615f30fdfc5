"""The linear probe by logistic regression to convergence, its penalty chosen on held-out images.

Source: the protocol of Kornblith et al. 2019 and Ericsson et al. 2021 (ssl-transfer): L-BFGS, the
penalty chosen on validation images, then a fit to all training images. Theirs has 45 penalties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustviews.options import LazyModule, option, plan_only
from robustviews.probe.protocol import Classifying

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustviews import optim
    from robustviews.encoder import Encoder
    from robustviews.probe import heads, holdout
    from robustviews.probe.protocol import History, Training
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")
    heads, optim = LazyModule("robustviews.probe.heads"), LazyModule("robustviews.optim")
    holdout = LazyModule("robustviews.probe.holdout")


@dataclass(frozen=True)
class LogisticProbe(Classifying):
    """A linear head on frozen features of whole images, fitted by L-BFGS in float64.

    Attributes:
        regularisation: values of C, the inverse of the L2 penalty in scikit-learn's unit. The one
            with the highest accuracy on a held-out tenth of the training images is used to fit all
            training images; a single one is used as it is.
        iterations: most iterations of a fit.
        feature: `backbone`, or the `prefeature` above it.
    """

    regularisation: tuple[float, ...] = option((0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4), gt=0)
    iterations: int = option(1000, ge=1)
    feature: Literal["prefeature", "backbone"] = "backbone"

    def __post_init__(self) -> None:
        """Refuse an empty list."""
        if not self.regularisation:
            raise ValueError("regularisation: expected at least one value, found none")

    @plan_only
    def describe(self) -> str:
        """Return the penalties."""
        values = ", ".join(f"{value:g}" for value in self.regularisation)
        chosen = f"C of {values} chosen on a held-out tenth" if values[1:] else f"C = {values}"
        return f"linear head, L-BFGS, {chosen}"

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Choose the penalty, then fit all training images; the history has a line per fit."""
        h = heads.frozen_features(self, encoder, training).double()
        head = heads.new_head(encoder, self.feature, training).double()
        chosen, history = self.regularisation[0], []
        if len(self.regularisation) > 1:
            kept, held = (part.to(h.device) for part in holdout.hold_out(training.labels))
            for c in self.regularisation:
                row = self._fit(head, h[kept], training.labels[kept], c=c)
                history.append({**row, "held_out": _accuracy(head, h[held], training.labels[held])})
            chosen = self.regularisation[holdout.best([row["held_out"] for row in history])]
        last = self._fit(head, h, training.labels, c=chosen)
        history.append({**last, "accuracy": _accuracy(head, h, training.labels)})
        return head.float(), history

    def _fit(self, head: nn.Linear, h: Tensor, labels: Tensor, *, c: float) -> dict[str, float]:
        """Minimise the mean cross-entropy plus |W|^2 / (2 C N), from zero, in place.

        The minimum is that of scikit-learn's LogisticRegression(C=c), which sums over images.
        """
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        solver = optim.Lbfgs(head.parameters(), iterations=self.iterations)

        def loss() -> Tensor:
            solver.zero_grad()
            penalty = head.weight.square().sum() / (2 * c * len(labels))
            value = nn.functional.cross_entropy(head(h), labels) + penalty
            value.backward()
            return value

        solver.step(loss)
        with torch.no_grad():
            found = nn.functional.cross_entropy(head(h), labels).item()
        return {"regularisation": c, "loss": found}


def _accuracy(head: nn.Linear, h: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((head(h).argmax(dim=1) == labels).double().mean())
