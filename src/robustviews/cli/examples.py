"""The verb `examples`: a picture of clean and perturbed views."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from robustviews import artifacts
from robustviews.cli.loading import fitting, load_split, load_weights
from robustviews.cli.stages import set_up
from robustviews.study import folders, load_study, plan
from robustviews.study.jobs import jobs

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews.encoder import Encoder
    from robustviews.methods import Batch, Loss, Method

IMAGES = 4  # in the picture
STEPS = 10
EPS = 8.0  # in 1/255, for encoders that were trained without an adversary


def examples(options: argparse.Namespace) -> None:
    """Draw views of a few training images, clean and perturbed by an encoder's adversary."""
    import torch

    from robustviews.attacks import fraction, in_pixels, pgd
    from robustviews.encoder import restore_encoder
    from robustviews.machine import runtime
    from robustviews.reporting import figures
    from robustviews.step import make_batch

    study = load_study(options.study)
    device = set_up(options, study)
    job = jobs(study)["examples", ""]
    name = plan.example_run(study)
    pretraining = plan.pretrainings(study)[name]
    run = study.runs[pretraining.entry]
    split, weights = load_split(job), load_weights(job, folders.ENCODER)
    assert weights is not None
    classes = split.classes if run.method.supervised else None
    with fitting(job):
        encoder = restore_encoder(
            weights, dataclasses.asdict(run.encoder), classes=classes, device=device
        )
    batch = make_batch(
        torch.tensor(split.images[:IMAGES], device=device),
        split.labels[:IMAGES].to(device),
        torch.arange(IMAGES, device=device),
        views=run.views,
        size=split.size,
        seed=pretraining.seed,
        epoch=0,
    )
    _check_finite(encoder, batch.views, name)
    eps = run.regime.eps or EPS
    what, loss = _adversary(encoder, run.method, batch)
    with runtime.frozen(encoder):
        adversarial = pgd(
            loss,
            run.method.target(batch),
            eps=in_pixels(eps),
            step_size=in_pixels(eps / 4),
            steps=STEPS,
        )
    _check_finite(encoder, adversarial, name)
    perturbed = batch.views.clone()
    perturbed[-1 if adversarial.dim() == 4 else slice(None)] = adversarial
    drawing = figures.example_views(
        batch.images.cpu().numpy(),
        batch.views.cpu().numpy(),
        perturbed.cpu().numpy(),
        note=f"{plan.label(study, pretraining.entry)}; PGD-{STEPS} on {what} at {fraction(eps)}",
    )
    svg, png = job.writes
    artifacts.write_bytes(svg, figures.to_svg(drawing))
    artifacts.write_bytes(png, figures.to_png(drawing))


def _adversary(encoder: Encoder, method: Method, batch: Batch) -> tuple[str, Loss]:
    """Return what an adversary maximises, in words and as a function of the perturbed target.

    Heads and teachers are not stored, so a method that has some is attacked through its encoder.
    """
    import torch

    from robustviews.network import build_network

    net = build_network(encoder, method).eval()
    if not [*net.projector.parameters(), *net.predictor.parameters(), *net.teacher.parameters()]:
        return "its loss", method.attack_loss(net, batch)
    with torch.no_grad():
        first = encoder(batch.views[0])
    similarity = torch.nn.functional.cosine_similarity
    return (
        "the distance of two views",
        lambda adversarial: -similarity(encoder(adversarial), first).mean(),
    )


def _check_finite(encoder: Encoder, images: Tensor, run: str) -> None:
    """Raise NonFiniteError if an encoder, or an output for images (..., 3, H, W), is not finite."""
    from robustviews.encoder import first_nonfinite
    from robustviews.finite import NonFiniteError

    part = first_nonfinite(encoder, images.reshape(-1, *images.shape[-3:]))
    if part:
        raise NonFiniteError(
            f"examples of {run}: not finite: {part}; train the encoder again with a lower "
            "optimizer.lr"
        )
