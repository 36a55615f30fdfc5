"""The checks: what each measures on a head, and when a measure says that no attack is established.

Measures are numbers of images that withstand an attack, named after it, or values of other checks.
Nothing but measuring needs torch: the audit judges recorded measures again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from robustviews.options import LazyModule
from robustviews.sanity.flags import Flags
from robustviews.sanity.options import Sanity

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import attacks
    from robustviews.sanity import subject as subjects
    from robustviews.sanity.subject import Subject

    Losses = Callable[[Tensor, Tensor], Tensor]  # of outputs and labels
else:
    torch, attacks = LazyModule("torch"), LazyModule("robustviews.attacks")
    subjects = LazyModule("robustviews.sanity.subject")

Measures = Mapping[str, float]

# Shares of the attacked images.
FEWEST = 2  # images: "more than one image" fails no check on a single one
RISE = 0.005  # AS3, AS4: accuracy under a stronger attack above that under a weaker one
LEFT = 0.01  # AS3: accuracy at the largest radius
GAIN = 0.01  # AS5: what more steps and random starts take from the accuracy under PGD-20
MISSED = 0.002  # AS6: what an attack without gradients takes from it
FLAT = 0.001  # AS9: images without gradient
DISAGREEMENT = 0.002  # AS12: images that AutoAttack leaves right and PGD does not
# Relative differences of logits.
REPEATED = 1e-4  # AS10: two passes
TOGETHER = 1e-3  # AS11: a batch of two, and a larger one
COSINE = 0.99  # AS13: of the gradient and the numerical one

DRAWS = 10  # of noise in AS8
_FEW = 8  # images of AS11 and AS13
_INFORMATION = 2  # attacks of `information`, each as long as PGD-20
_DIFFERENCE = 1e-5  # of central differences, in pixel units


class Check(NamedTuple):
    """One check.

    Attributes:
        says: what a head that passes has shown.
        measure: returns flags (n,) uint8, 1 where an image withstands an attack, and values.
            Flags `name/0`, `name/1` are tries of one attack, which an image must all withstand.
        fault: returns what is wrong, or an empty text, given the measures.
    """

    says: str
    measure: Callable[[Subject], Mapping[str, Tensor | float]]
    fault: Callable[[Measures, Sanity], str]


def effort(options: Sanity, *, images: int) -> tuple[float, float]:
    """Return the passes of an image in all checks, and its forward passes alone.

    Square and the information go on with images that withstand PGD-20: all are counted, also where
    an encoder has no other head. A pass in float64 counts twice.
    """
    attacks_made = len(options.radii) + 1 + options.restarts + 1 + DRAWS + _INFORMATION
    passes = 20 * (len(options.radii) + _INFORMATION) + 1 + options.steps * options.restarts + 1
    numerical = 2 * 2 * options.pixels * min(1, _FEW / images)
    return float(passes), attacks_made + options.queries + 4 + numerical


def disagrees(strong: Flags, weak: Flags, name: str) -> bool:
    """Return whether a strong attack leaves too many images right that a weaker one fools (AS12).

    Args:
        strong: flags of AutoAttack, with their `index`.
        weak: flags of PGD.
        name: name of the flags of a radius in both.
    """
    _, first, second = np.intersect1d(strong["index"], weak["index"], return_indices=True)
    missed = int(((strong[name][first] == 1) & (weak[name][second] == 0)).sum())
    return _exceeds(missed, DISAGREEMENT, {"n": len(first)})


def failed(measures: Measures, options: Sanity) -> dict[str, str]:
    """Return the failed checks, each with what is wrong.

    Args:
        measures: of all checks.
        options: with which they were measured.
    """
    if measures["n"] < FEWEST:
        found = f"{measures['n']:.0f} images are classified correctly"
        return {"AS3": f"{found}: too few to judge an attack, which takes {FEWEST}"}
    faults = {name: check.fault(measures, options) for name, check in CHECKS.items()}
    return {name: fault for name, fault in faults.items() if fault}


def _many(count: float, measures: Measures) -> str:
    return f"{count:.0f} of {measures['n']:.0f} images"


def _exceeds(count: float, share: float, measures: Measures) -> bool:
    """Return whether a number of images exceeds a share of all, and one image."""
    return count > max(1, share * measures["n"])


def _pgd_by_radius(subject: Subject) -> dict[str, Tensor]:
    return {f"pgd_{radius:g}": subject.pgd(radius) for radius in subject.options.radii}


def _not_falling(m: Measures, options: Sanity) -> str:
    if m["pgd_0"] != m["n"]:
        return f"a radius of 0 changes the prediction of {_many(m['n'] - m['pgd_0'], m)}"
    least = m["n"]
    for radius in options.radii:
        right = m[f"pgd_{radius:g}"]
        if _exceeds(right - least, RISE, m):
            return f"{_many(right - least, m)} more are right at {radius:g}/255 than at less"
        least = min(least, right)
    if right > LEFT * m["n"] + 1:
        return f"{_many(right, m)} withstand {radius:g}/255"
    return ""


def _one_step(subject: Subject) -> dict[str, Tensor]:
    eps = attacks.in_pixels(subject.options.eps)

    def perturb(inputs: Tensor, labels: Tensor, _: int) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return subject.losses(subject.logits(x), labels)

        return attacks.pgd(loss, inputs, eps=eps, step_size=eps, steps=1)

    return {"fgsm": subject.attacked(perturb, subject.options.eps)}


def _one_step_better(m: Measures, options: Sanity) -> str:
    more = m[f"pgd_{options.eps:g}"] - m["fgsm"]
    return f"FGSM fools {_many(more, m)} more than PGD-20" if _exceeds(more, RISE, m) else ""


def _more_effort(subject: Subject) -> dict[str, Tensor]:
    options = subject.options
    return {
        f"restarts/{number}": subject.pgd(options.eps, steps=options.steps, try_=number)
        for number in range(options.restarts)
    }


def _not_converged(m: Measures, options: Sanity) -> str:
    more = m[f"pgd_{options.eps:g}"] - m["restarts"]
    if more <= GAIN * m["n"] + 1:
        return ""
    return f"{options.steps} steps from {options.restarts} random starts fool {_many(more, m)} more"


def _square(subject: Subject) -> dict[str, Tensor]:
    """Attack the images that withstand PGD-20 by random squares (Andriushchenko et al. 2020)."""
    from pyautoattack.square import SquareAttack

    options = subject.options
    right = subject.rows[f"pgd_{options.eps:g}"].bool().to(subject.inputs.device)
    ends = right.split(subject.at_once)

    def perturb(inputs: Tensor, labels: Tensor, number: int) -> Tensor:
        left = ends[number]
        if not left.any():
            return inputs
        square = SquareAttack(
            lambda x: subject.logits(x.view(len(x), *inputs.shape[1:])),
            n_queries=options.queries,
            eps=attacks.in_pixels(options.eps),
            seed=number,
            device=inputs.device,
        )
        flat = inputs.flatten(1, -3)  # the views of a stack as channels: (B, views 3, H, W)
        with torch.random.fork_rng():  # the official code seeds the global generator
            found = square.perturb(flat[left], labels[left])
        inputs[left] = found.view(-1, *inputs.shape[1:])
        return inputs

    return {"square": subject.attacked(perturb, options.eps) & right.to("cpu", torch.uint8)}


def _without_gradients(m: Measures, options: Sanity) -> str:
    more = m[f"pgd_{options.eps:g}"] - m["square"]
    return f"Square fools {_many(more, m)} more than PGD-20" if _exceeds(more, MISSED, m) else ""


def _noise(subject: Subject) -> dict[str, Tensor]:
    eps = attacks.in_pixels(subject.options.eps)

    def drawn(draw: int) -> Tensor:
        def perturb(inputs: Tensor, _: Tensor, number: int) -> Tensor:
            generator = subject.generator("noise", draw, number)
            noise = torch.empty_like(inputs).uniform_(-eps, eps, generator=generator)
            if draw % 2:  # a corner of the ball
                noise = eps * noise.sign()
            return (inputs + noise).clamp(0, 1)

        return subject.attacked(perturb, subject.options.eps)

    return {f"noise/{draw}": drawn(draw) for draw in range(DRAWS)}


def _noise_better(m: Measures, options: Sanity) -> str:
    more = m[f"pgd_{options.eps:g}"] - m["noise"]
    return f"noise fools {_many(more, m)} more than PGD-20" if more > 0 else ""


def _gradients(subject: Subject) -> dict[str, float]:
    """Count images whose first gradient, in the attack's own precision, is zero or not finite."""

    def gradient(inputs: Tensor, labels: Tensor, _: int) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        loss = subject.losses(subject.logits(inputs), labels).sum()
        return torch.autograd.grad(loss, inputs)[0].flatten(1)

    rows = subject.over_batches(gradient)
    finite = rows.isfinite().all(dim=-1)
    return {
        "zero_gradients": int((rows == 0).all(dim=-1).sum()),
        "infinite_gradients": int((~finite).sum()),
    }


def _no_gradient(m: Measures, _: Sanity) -> str:
    if m["infinite_gradients"]:
        return f"the gradient of {_many(m['infinite_gradients'], m)} is not finite"
    zero = m["zero_gradients"]
    return f"the gradient of {_many(zero, m)} is zero" if zero > FLAT * m["n"] else ""


def _repeat(subject: Subject) -> dict[str, float]:
    with torch.no_grad():
        first, second = (subject.over_batches(lambda x, *_: subject.logits(x)) for _ in range(2))
    return {"repeat_difference": _relative(first, second)}


def _not_repeatable(m: Measures, _: Sanity) -> str:
    difference = m["repeat_difference"]
    if difference <= REPEATED:
        return ""
    return f"two passes give logits that differ by {difference:.2g} of the largest"


def _outputs(subject: Subject) -> dict[str, float]:
    """Compare logits of all images together with those of pairs; look at modes and ranges."""
    few = subject.inputs[:_FEW]
    with torch.no_grad():
        together = subject.over_batches(lambda x, *_: subject.logits(x))
        pairs = [subject.logits(pair) for pair in few.split(2)]
    apart = torch.cat(pairs)
    sums = together.sum(dim=1)
    probabilities = bool((together >= 0).all()) and bool(((sums - 1).abs() < TOGETHER).all())
    training = any(module.training for module in subject.classifier.modules())
    return {
        "batch_difference": _relative(together[: len(few)], apart),
        "training_mode": float(training),
        "probabilities": float(probabilities),
    }


def _bad_outputs(m: Measures, _: Sanity) -> str:
    if m["training_mode"]:
        return "a module is in training mode"
    if m["probabilities"]:
        return "the outputs are probabilities; attacks need logits"
    if m["batch_difference"] <= TOGETHER:
        return ""
    difference = f"{m['batch_difference']:.2g} of the largest"
    return f"logits in a batch of two differ from those in a larger one by {difference}"


def _relative(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value; infinite for NaN."""
    difference = ((one - other).abs().max() / one.abs().max().clamp(min=1e-12)).item()
    return difference if np.isfinite(difference) else float("inf")


def _numerical(subject: Subject) -> dict[str, float]:
    def odds(logits: Tensor, labels: Tensor) -> Tensor:
        """Return (B,) log odds against the label: they rise with the loss, but do not saturate."""
        own = labels.unsqueeze(1)
        others = logits.scatter(1, own, -torch.inf).logsumexp(dim=1)
        odds_against: Tensor = others - logits.gather(1, own).squeeze(1)
        return odds_against

    return derivatives(subject, odds)


def derivatives(subject: Subject, losses: Losses) -> dict[str, float]:
    """Compare gradients of losses (B,) with central differences, in float64."""
    few = min(_FEW, subject.at_once)
    exact, labels = copy.deepcopy(subject.classifier).double(), subject.labels[:few]
    clean, generator = subject.inputs[:few].double(), subject.generator("pixels")

    def value(x: Tensor) -> Tensor:
        return losses(subjects.connected(exact(x), x), labels)

    # Clean pixels of the same value tie in max-pooling, where no derivative exists.
    noise = torch.empty_like(clean).uniform_(-1, 1, generator=generator)
    inputs = (clean + attacks.in_pixels(1) * noise).requires_grad_()
    gradient = torch.autograd.grad(value(inputs).sum(), inputs)[0].flatten(1)  # (B, D)
    order = torch.rand(gradient.shape, generator=generator, device=clean.device).argsort(dim=1)
    where = order[:, : subject.options.pixels]  # (B, pixels)
    columns = []
    with torch.no_grad():
        for position in where.T.unsqueeze(-1):  # (B, 1)
            step = torch.zeros_like(gradient).scatter(1, position, _DIFFERENCE).view_as(inputs)
            columns.append((value(inputs + step) - value(inputs - step)) / (2 * _DIFFERENCE))
    numerical, analytical = torch.stack(columns, dim=1), gradient.gather(1, where)
    cosines = torch.nn.functional.cosine_similarity(numerical, analytical, dim=1, eps=1e-300)
    flat = (numerical == 0).all(dim=1) & (analytical == 0).all(dim=1)
    return {"wrong_gradients": int((~(cosines >= COSINE) & ~flat).sum())}


def _wrong_gradients(m: Measures, _: Sanity) -> str:
    wrong = m["wrong_gradients"]
    return f"the gradients of {wrong:.0f} images are not derivatives" if wrong > 1 else ""


CHECKS: dict[str, Check] = {
    "AS3": Check("accuracy under PGD-20 falls to 0 with the radius", _pgd_by_radius, _not_falling),
    "AS4": Check("PGD-20 is stronger than one step", _one_step, _one_step_better),
    "AS5": Check("more steps and random starts gain nothing", _more_effort, _not_converged),
    "AS6": Check("an attack without gradients gains nothing", _square, _without_gradients),
    "AS8": Check("noise is weaker than PGD-20", _noise, _noise_better),
    "AS9": Check("gradients exist", _gradients, _no_gradient),
    "AS10": Check("the classifier is deterministic", _repeat, _not_repeatable),
    "AS11": Check("the classifier returns logits, image by image", _outputs, _bad_outputs),
    "AS13": Check("gradients are derivatives", _numerical, _wrong_gradients),
}
