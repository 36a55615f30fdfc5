"""Checks of heads that answer with classes of pixels or with boxes: their attacks lower a metric.

The attacks are projected gradients of the task: CosPGD on pixels, untargeted on a detector. Names
are those of `checks` where a check asks the same. A measure named after an attack is the metric of
the answers, of several tries the worst of each image; others are numbers of images, or values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from robustviews.attacks.detection import DetectionPgd
from robustviews.attacks.segmentation import Sea, SegmentationPgd
from robustviews.options import LazyModule
from robustviews.sanity import checks
from robustviews.sanity.checks import Check, Measures
from robustviews.sanity.metrics import measures_of, metric_of
from robustviews.sanity.options import Sanity
from robustviews.tasks.detection import DETECTION
from robustviews.tasks.segmentation import SEGMENTATION

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews import attacks, evaluate
    from robustviews.augment import Views
    from robustviews.evaluate import Classifier
    from robustviews.machine import runtime
    from robustviews.machine.feed import Feed
    from robustviews.sanity import stage
    from robustviews.sanity import subject as subjects
    from robustviews.sanity.subject import Subject
else:
    torch, attacks = LazyModule("torch"), LazyModule("robustviews.attacks")
    evaluate, runtime = (
        LazyModule("robustviews.evaluate"),
        LazyModule("robustviews.machine.runtime"),
    )
    stage, subjects = (
        LazyModule("robustviews.sanity.stage"),
        LazyModule("robustviews.sanity.subject"),
    )

# Differences of a metric in [0, 1]; the share 1 / n of one image is allowed, too.
RISE = 0.005  # AS3, AS4, AS5, AS8: under a stronger attack above that under a weaker one
LEFT = 0.05  # AS3: at the largest radius
GAIN = 0.05  # AS5: what more steps and random starts take
_OUTSIDE = 1e-3  # DS2: pixels

_STEPS, _OVERSHOOT = 20, 2.5  # as in `subject`; the steps could cross the radius 2.5 times
_LARGEST_STEP = 2.0  # radii
_SEA_STEPS = 4
_FEW = 8  # images of AS10, AS11 and DS1
_BOXES, _PIXELS = DETECTION.metrics[0], SEGMENTATION.metrics[0]


@dataclass(frozen=True)
class DenseChecks:
    """The checks of dense heads, as the argument `dense` of the stage."""

    def choose(
        self,
        classifier: Classifier,
        images: Feed,
        labels: Tensor,
        *,
        options: Sanity,
        views: Views,
        size: int,
        seed: int,
        batch: int,
        peer: Classifier | None = None,
    ) -> Subject:
        """Return a head with test images, a fixed choice, and its answers about them."""
        index = evaluate.choose_images(len(images), min(options.images, len(images)))
        at_once = max(1, min(len(index), batch))
        key = runtime.counter_key(seed, "test")
        with contextlib.closing(images.batches(index.split(at_once))) as batches:
            inputs = [
                classifier.probe.inputs(chosen, positions, views, size=size, seed=key)
                for positions, chosen in batches
            ]
        subject = subjects.Subject(
            classifier,
            inputs=torch.cat(inputs),
            labels=labels[index.to(labels.device)].to(inputs[0].device),
            options=options,
            at_once=at_once,
            seed=seed,
            rows={"index": index},
            peer=peer,
        )
        clean = subject.attacked(lambda inputs, *_: inputs, 0.0)
        truth = classifier.probe.task.truth(subject.labels.cpu().numpy(), clean.numpy())
        subject.rows.update(labels=torch.from_numpy(truth), clean=clean)
        return subject

    def examine(self, subject: Subject, *, title: str = "sanity") -> dict[str, Any]:
        """Run all checks on a head and add the answers to its rows; as `stage.examine`."""
        task = subject.classifier.probe.task
        measuring = [check.measure for check in _checks(task.metrics[0]).values()]
        values = stage.measured(subject, measuring, title=title)
        rows = {name: row.numpy() for name, row in subject.rows.items()}
        measures = measures_of(rows, task) | values
        return {"measures": measures, "failed": failed(measures, subject.options)}


def failed(measures: Measures, options: Sanity) -> dict[str, str]:
    """Return the failed checks, each with what is wrong; arguments as in `checks.failed`."""
    if measures["n"] < checks.FEWEST:
        return {"AS3": f"{measures['n']:.0f} images: too few, which takes {checks.FEWEST}"}
    every = _checks(metric_of(measures)).items()
    faults = {name: check.fault(measures, options) for name, check in every}
    return {name: fault for name, fault in faults.items() if fault}


def described(measures: Measures, options: Sanity) -> dict[str, str]:
    """Return the metric that attacks at the radius `eps` leave, by attack."""
    metric = metric_of(measures)
    names = {
        "clean": metric,
        f"PGD-{_STEPS}": f"pgd_{options.eps:g}",
        f"PGD-{options.steps}, random starts: {options.restarts}": "restarts",
        "noise": "noise",
        f"SEA-{_SEA_STEPS}": "sea",
    }
    return {
        text: f"{metric} {measures[name]:.3f}" for text, name in names.items() if name in measures
    }


def effort(options: Sanity, *, images: int) -> tuple[float, float]:
    """Return the passes of an image in all checks, and its forward passes; as `checks.effort`.

    SEA is counted for detectors, too.
    """
    share = min(1, _FEW / images)
    sea = 2 * Sea(eps=(options.eps,), steps=_SEA_STEPS).passes
    passes = _STEPS * (len(options.radii) - 1) + 1 + 1 + options.steps * options.restarts
    answered = len(options.radii) + 1 + options.restarts + checks.DRAWS + 2
    numerical = 2 * 2 * options.pixels * share
    return passes + sea + 1 + share, answered + 4 * share + numerical


def _checks(metric: str) -> dict[str, Check]:
    """Return the checks of a task, by the metric of its measures."""
    own = {_BOXES: "DS2", _PIXELS: "DS3"}
    others = {name for other, name in own.items() if other != metric}
    return {name: check for name, check in CHECKS.items() if name not in others}


def _few(subject: Subject) -> Subject:
    return subject.part(torch.arange(len(subject.labels)) < _FEW)


def _pgd(
    subject: Subject,
    radius: float,
    *,
    steps: int = _STEPS,
    share: float | None = None,
    try_: int | None = None,
) -> Tensor:
    """Return the answers under PGD of the task.

    Args:
        subject: the head.
        radius: in 1/255.
        steps: gradient steps.
        share: size of a step as a share of the radius; None for 2.5 / steps.
        try_: number of the random start; None starts at the images.
    """
    steps = steps if radius else 1  # a ball of one point
    attack = ATTACKS[subject.classifier.probe.task.name](
        eps=(subject.options.eps,),
        steps=steps,
        relative_step=share or min(_OVERSHOOT / steps, _LARGEST_STEP),
        random_start=try_ is not None,
    )

    def perturb(inputs: Tensor, labels: Tensor, number: int) -> Tensor:
        seed, eps = _seed(subject, "start", try_ or 0, number), attacks.in_pixels(radius)
        return attack.perturb(subject.logits, inputs, labels, eps=eps, seed=seed)

    return subject.attacked(perturb, radius)


def _seed(subject: Subject, *purpose: int | str) -> int:
    return runtime.attack_seed(subject.seed, "sanity", *purpose)


def _pgd_by_radius(subject: Subject) -> dict[str, Tensor]:
    return {f"pgd_{radius:g}": _pgd(subject, radius) for radius in subject.options.radii}


def _not_falling(m: Measures, options: Sanity) -> str:
    metric, one = metric_of(m), 1 / m["n"]
    least = right = m[metric]
    if m["changed"]:
        return f"a radius of 0 changes the answers about {m['changed']:.0f} images"
    if least <= LEFT + one:
        return f"{metric} of clean images is {least:.3f}: too little to judge an attack"
    for radius in options.radii:
        right = m[f"pgd_{radius:g}"]
        if _exceeds(right, least, m):
            return f"{metric} is {right:.3f} at {radius:g}/255, and {least:.3f} at less"
        least = min(least, right)
    return f"{metric} {right:.3f} withstands {radius:g}/255" if right > LEFT + one else ""


def _exceeds(value: float, limit: float, m: Measures) -> bool:
    """Return whether a metric exceeds a limit by more than rounding, and than one image counts."""
    return value - limit > max(RISE, 1 / m["n"])


def _one_step(subject: Subject) -> dict[str, Tensor]:
    return {"fgsm": _pgd(subject, subject.options.eps, steps=1, share=1.0)}


def _more_effort(subject: Subject) -> dict[str, Tensor]:
    options = subject.options
    return {
        f"restarts/{number}": _pgd(subject, options.eps, steps=options.steps, try_=number)
        for number in range(options.restarts)
    }


def _not_converged(m: Measures, options: Sanity) -> str:
    few, many = m[f"pgd_{options.eps:g}"], m["restarts"]
    if many < few - GAIN - 1 / m["n"]:
        return f"{options.steps} steps lower {metric_of(m)} from {few:.3f} to {many:.3f}"
    if _exceeds(many, few, m):
        return f"{options.steps} steps leave {metric_of(m)} {many:.3f}, {_STEPS} steps {few:.3f}"
    return ""


def _stronger(name: str, text: str) -> Callable[[Measures, Sanity], str]:
    """Return the judgement that another attack is no stronger than PGD."""

    def fault(m: Measures, options: Sanity) -> str:
        value, other = m[f"pgd_{options.eps:g}"], m[name]
        if not _exceeds(value, other, m):
            return ""
        return f"{text} lowers {metric_of(m)} to {other:.3f}, PGD-{_STEPS} to {value:.3f}"

    return fault


def _numerical(subject: Subject) -> dict[str, float]:
    return checks.derivatives(subject, subject.losses)


def _of_few(check: Check) -> Callable[[Subject], Mapping[str, Tensor | float]]:
    """Return what a check measures, on a few of the images."""
    return lambda subject: check.measure(_few(subject))


def _state(subject: Subject) -> dict[str, float]:
    """Count tensors of the network that one step of an attack changes."""
    before = {name: one.clone() for name, one in subject.classifier.state_dict().items()}
    _pgd(_few(subject), subject.options.eps, steps=1)
    after = subject.classifier.state_dict()
    return {"moved": sum(not torch.equal(one, after[name]) for name, one in before.items())}


def _moved(m: Measures, _: Sanity) -> str:
    return f"an attack changes {m['moved']:.0f} tensors of the network" if m["moved"] else ""


def _boxes(subject: Subject) -> dict[str, float]:
    """Count images with a box that leaves the image, under any attack so far."""
    side = max(subject.inputs.shape[-2:])
    outside = torch.zeros(len(subject.labels), dtype=torch.bool)
    for name, row in subject.rows.items():
        if name not in ("index", "labels"):
            known, corners = row[..., 5] >= 0, row[..., :4]
            beyond = (corners < -_OUTSIDE) | (corners > side + _OUTSIDE)
            outside |= (beyond.any(dim=-1) & known).any(dim=-1)
    return {"outside": int(outside.sum())}


def _outside(m: Measures, _: Sanity) -> str:
    return f"boxes leave {m['outside']:.0f} images" if m["outside"] else ""


def _sea(subject: Subject) -> dict[str, Tensor]:
    """Attack by SEA, and by each of its losses alone from the same starts."""
    radius = subject.options.eps
    attack = Sea(eps=(radius,), steps=_SEA_STEPS)
    made: list[dict[str, Tensor]] = []  # images of each part, by batch

    def whole(inputs: Tensor, labels: Tensor, number: int) -> Tensor:
        seed, eps = _seed(subject, "sea", number), attacks.in_pixels(radius)
        points = attack.parts(subject.logits, inputs, labels, eps=eps, seed=seed)
        made.append({name: point.images for name, point in points.items()})
        return attack.perturb(subject.logits, inputs, labels, eps=eps, seed=seed)

    found = {"sea": subject.attacked(whole, radius)}
    for name in made[0]:
        each = (images[name] for images in made)
        alone = subject.attacked(lambda *_, each=each: next(each), radius)
        found[f"sea_part/{name}"] = alone
    return found


def _sea_weaker(m: Measures, _: Sanity) -> str:
    if m["sea_better"] <= 1:
        return ""
    return f"SEA leaves {m['sea_better']:.0f} images better than one of its own attacks"


ATTACKS: dict[str, Callable[..., attacks.Attack]] = {
    SEGMENTATION.name: partial(SegmentationPgd, loss="cospgd"),
    DETECTION.name: DetectionPgd,
}

CHECKS: dict[str, Check] = {
    "AS3": Check("the metric under PGD falls to 0 with the radius", _pgd_by_radius, _not_falling),
    "AS4": Check("PGD is stronger than one step", _one_step, _stronger("fgsm", "one step")),
    "AS5": checks.CHECKS["AS5"]._replace(measure=_more_effort, fault=_not_converged),
    "AS8": checks.CHECKS["AS8"]._replace(fault=_stronger("noise", "noise")),
    "AS9": checks.CHECKS["AS9"],
    "AS10": checks.CHECKS["AS10"]._replace(measure=_of_few(checks.CHECKS["AS10"])),
    "AS11": checks.CHECKS["AS11"]._replace(measure=_of_few(checks.CHECKS["AS11"])),
    "AS13": checks.CHECKS["AS13"]._replace(measure=_numerical),
    "DS1": Check("an attack changes nothing of the network", _state, _moved),
    "DS2": Check("boxes lie in the image", _boxes, _outside),
    "DS3": Check("SEA is as strong as each of its attacks", _sea, _sea_weaker),
}
