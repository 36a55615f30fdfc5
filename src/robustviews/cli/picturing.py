"""The verb `examples`: a picture of views, clean and perturbed."""

from __future__ import annotations

import argparse

from robustviews import artifacts
from robustviews.cli.jobs import set_up
from robustviews.cli.loading import load_encoder, load_split
from robustviews.study import folders, load_study, plan

IMAGES = 4  # in the picture
STEPS = 10
EPS = 8.0  # in 1/255, for an encoder that was trained without an adversary


def examples(options: argparse.Namespace) -> None:
    """Draw views of a few training images, clean and as an encoder's adversary perturbs them."""
    import torch

    from robustviews.attacks import pgd
    from robustviews.machine import runtime
    from robustviews.pretrain import make_batch
    from robustviews.reporting import figures

    study, device = load_study(options.study), set_up(options)
    name = plan.example_run(study)
    job = plan.jobs(study)[name]
    run = study.runs[job.entry]
    images, labels, summary, _ = load_split(study, job.dataset, "train")
    encoder, _ = load_encoder(study, name, summary["classes"], device)
    first = torch.tensor(images[:IMAGES], device=device)
    batch = make_batch(
        first,
        labels[:IMAGES].to(device),
        torch.arange(IMAGES, device=device),
        views=run.views,
        size=summary["size"],
        seed=job.seed,
        epoch=0,
    )
    eps = getattr(run.regime, "eps", EPS)
    with runtime.frozen(encoder):
        adversarial = pgd(
            run.method.attack_loss(encoder, batch),
            run.method.target(batch),
            eps=eps / 255,
            step_size=eps / 4 / 255,
            steps=STEPS,
        )
    perturbed = batch.views.clone()
    perturbed[-1 if adversarial.dim() == 4 else slice(None)] = adversarial
    drawing = figures.example_views(
        batch.images.cpu().numpy(),
        batch.views.cpu().numpy(),
        perturbed.cpu().numpy(),
        note=f"{plan.label(study, job.entry)}; PGD-{STEPS} on its loss at {eps:g}/255",
    )
    folder = folders.results_folder(study) / "examples"
    artifacts.write_bytes(folder / "views.svg", figures.to_svg(drawing))
    artifacts.write_bytes(folder / "views.png", figures.to_png(drawing))
