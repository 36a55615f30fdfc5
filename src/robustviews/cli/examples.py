"""The verb `examples`: pictures of perturbed views, and of adversarial images of each task."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from robustviews import artifacts
from robustviews.cli.working import set_up
from robustviews.machine import gpus
from robustviews.study import folders, load_study, plan
from robustviews.study.inputs import (
    completed_arguments,
    fitting,
    load_encoder,
    load_head,
    load_split,
)
from robustviews.study.jobs import attack_of, jobs
from robustviews.tasks.classification import CLASSIFICATION

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure as Drawing
    from torch import Tensor

    from robustviews.encoder import Encoder
    from robustviews.methods import Batch, Loss, Method
    from robustviews.reporting.figures import Attacked, Shown
    from robustviews.study import Study
    from robustviews.study.plan import Cell

IMAGES = 4  # in the picture of views
ATTACKED = 2  # images of each row in the picture of adversarial images
SCORE = 0.3  # least score of a drawn box
STEPS = 10
EPS = 8.0  # in 1/255, for encoders that were trained without an adversary


def examples(options: argparse.Namespace) -> None:
    """Draw views of a few training images, and adversarial test images of each main row."""
    study = load_study(options.study)
    with gpus.taken(options.device):
        _draw(study, set_up(options, study))


def _draw(study: Study, device: torch.device) -> None:
    from robustviews.reporting import figures
    from robustviews.reporting.tables.writers import distinct

    drawings = [_views(study, device)] if plan.example_run(study) else []
    for task, cells in plan.examples(study).items():
        shown = cells[0].measure
        title = f"{shown.label}: {study.attacks[shown.metric].describe()}"
        networks = zip(distinct(cells), cells, strict=True)
        attacked = {name: _attacked(study, cell, device) for name, cell in networks}
        if task == CLASSIFICATION.name:
            images = {name: list(_classified(one)) for name, one in attacked.items()}
            drawings.append(figures.adversarial_images(images, title=title))
        else:
            names = next(iter(attacked.values())).names
            answers = {name: list(_answered(one, task)) for name, one in attacked.items()}
            drawings.append(figures.dense_images(answers, names, title=title))
    files = iter(jobs(study)["examples", ""].writes)
    for drawing in drawings:
        artifacts.write_bytes(next(files), figures.to_svg(drawing))
        artifacts.write_bytes(next(files), figures.to_png(drawing))


def _views(study: Study, device: torch.device) -> Drawing:
    """Draw views of training images, clean and perturbed by an encoder's adversary."""
    import torch

    from robustviews.attacks import fraction, in_pixels, pgd
    from robustviews.encoder import restore_encoder
    from robustviews.machine import runtime
    from robustviews.reporting import figures
    from robustviews.step import make_batch

    name = plan.example_run(study)
    pretraining = plan.pretrainings(study)[name]
    run = study.runs[pretraining.entry]
    training = jobs(study)["pretrain", name]
    path = folders.job_folder(study, "pretrain", name) / folders.ENCODER
    job = dataclasses.replace(training, reads={**training.reads, path: training.key})
    split, weights = load_split(job), load_encoder(job)
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
    return figures.example_views(
        batch.images.cpu().numpy(),
        batch.views.cpu().numpy(),
        perturbed.cpu().numpy(),
        note=f"{plan.label(study, pretraining.entry)}; PGD-{STEPS} on {what} at {fraction(eps)}",
    )


class _Pairs(NamedTuple):
    """Clean and adversarial inputs of a network, and its outputs for both."""

    labels: Tensor
    inputs: tuple[Tensor, Tensor]
    outputs: tuple[Tensor, Tensor]
    names: Sequence[str]  # of the classes


def _attacked(study: Study, cell: Cell, device: torch.device) -> _Pairs:
    """Attack the first images of a cell's attack again, on its first seed."""
    import torch

    from robustviews import evaluate
    from robustviews.encoder import restore_encoder
    from robustviews.machine import runtime

    job = jobs(study)["attack", attack_of(cell)]
    options, split = completed_arguments(job), load_split(job)
    weights, probe = load_encoder(job), options["probe"]
    with fitting(job):
        classes = split.classes if options["supervised"] else None
        encoder = restore_encoder(weights, options["encoder"], classes=classes, device=device)
        head = probe.restore(load_head(job) or {}, encoder, classes=split.classes)
    classifier = evaluate.Classifier(encoder, head, probe).eval()
    index = evaluate.choose_images(len(split.images), options["attack"].images)[:ATTACKED]
    labels = split.labels[index].to(device)
    pixels = torch.tensor(split.images[index.numpy()], device=device)
    seed = runtime.counter_key(options["seed"], "test")
    with runtime.frozen(classifier), runtime.tf32(allowed=False):
        clean = probe.inputs(pixels, index.to(device), options["views"], size=split.size, seed=seed)
        found, _ = evaluate.attack_once(
            classifier,
            options["attack"],
            clean,
            labels,
            radius=cell.eps or 0.0,
            seed=runtime.attack_seed(options["seed"], "attack", 0),
            task=probe.task,
            title=job.name,
        )
        outputs = classifier(clean), classifier(found)
    return _Pairs(labels, (clean, found), outputs, split.names)


def _classified(pairs: _Pairs) -> Iterator[Attacked]:
    """Yield the predicted class of each image, clean and attacked."""
    from robustviews.reporting.figures import Attacked

    shares = [outputs.softmax(dim=1) for outputs in pairs.outputs]
    for number, label in enumerate(pairs.labels.tolist()):
        views = [inputs[number].reshape(-1, *inputs.shape[-3:])[0] for inputs in pairs.inputs]
        guesses = [one[number].max(dim=0) for one in shares]
        yield Attacked(
            label,
            tuple(view.cpu().numpy() for view in views),
            tuple((int(guess.indices), float(guess.values)) for guess in guesses),
        )


def _answered(pairs: _Pairs, task: str) -> Iterator[Shown]:
    """Yield masks or boxes of each image: its labels, and the answers, clean and attacked."""
    from robustviews.reporting.figures import Shown
    from robustviews.tasks.table import TASKS

    size = (pairs.inputs[0].shape[-2], pairs.inputs[0].shape[-1])

    def answers(outputs: Tensor, number: int) -> np.ndarray[Any, Any]:
        if outputs.dim() == 4:
            return outputs[number].argmax(dim=0).cpu().numpy()
        found = TASKS[task].answers(outputs, pairs.labels, size)[number].cpu().numpy()
        return found[(found[:, 5] >= 0) & (found[:, 4] >= SCORE)][::-1]  # the best one on top

    for number, labels in enumerate(pairs.labels.cpu().numpy()):
        clean, attacked = (inputs[number].cpu().numpy() for inputs in pairs.inputs)
        first, second = (answers(outputs, number) for outputs in pairs.outputs)
        objects = labels if labels.dtype == np.uint8 else labels[labels[:, 4] >= 0]
        yield Shown((clean, attacked), objects, (first, second))


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
