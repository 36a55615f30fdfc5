"""A small study and a results tree as its jobs would leave it, without any training."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from robustviews import artifacts, plan
from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.config.schema import Figure, Row, Run, Study, Table
from robustviews.datasets import Digits
from robustviews.methods import EmpSsl, SimClr, Supervised
from robustviews.probe import OWN_HEAD, LinearProbe, RobustLinearProbe
from robustviews.regimes import Free, Pgd

IMAGES = 200
DEVICE = "cpu: Abacus 3000"
COLUMNS = ("digits/clean", "digits/pgd20/4", "digits/pgd20/8", "digits/minutes")
ROWS = {
    "free": Row("emp-free3", "rle", published=(75.88, 55.97, "unavailable", 97)),
    "pgd": Row("simclr-pgd5", "rle", label="SimCLR | PGD_5", published=(72.86, 47.98, None, 934)),
    "supervised": Row("supervised-free3", "own"),
}


def small_study(**changes: Any) -> Study:
    """Return a study of three runs, one of them with three seeds, two tables and three figures."""
    figure = {"title": "A figure", "columns": COLUMNS[:3], "rows": ROWS}
    options: dict[str, Any] = {
        "study": "tiny",
        "title": "A tiny study",
        "datasets": {"digits": Digits()},
        "runs": {
            "emp-free3": Run(
                EmpSsl(),
                Free(),
                ("digits",),
                epochs=3,
                label="CF-AMC-SSL",
                seeds=(0, 1, 2),
                views=Views(count=4, augmentation="emp_ssl"),
            ),
            "simclr-pgd5": Run(SimClr(), Pgd(), ("digits",), epochs=6),
            "supervised-free3": Run(
                Supervised(), Free(), ("digits",), epochs=2, views=Views(count=1)
            ),
        },
        "probes": {
            "central": LinearProbe(epochs=2),
            "rle": RobustLinearProbe(epochs=3, rle_start="central"),
            "own": OWN_HEAD,
        },
        "attacks": {
            "pgd20": PgdAttack(eps=(4.0, 8.0)),
            "autoattack": AutoAttack(eps=(8.0,), images=50),
        },
        "tables": {
            "table1": Table("Robust encoders", COLUMNS, ROWS, source="Table 1"),
            "aa": Table("AutoAttack", ("digits/autoattack/8",), {"free": Row("emp-free3", "rle")}),
        },
        "figures": {
            "bars": Figure(**figure, kind="bars"),
            "tradeoff": Figure(**figure, kind="tradeoff"),
            "cost": Figure("Cost", COLUMNS, ROWS, kind="cost"),
        },
    }
    return Study(**(options | changes))


def write_tree(root: Path, study: Study) -> None:
    """Write records, flags and training curves of every job of a study below a project folder."""
    for run in plan.jobs(study):
        write_pretraining(root, study, run)
    for run, probe in sorted(plan.heads(study), key=lambda head: head[1] != "central"):
        write_head(root, study, run, probe)
    for run, probe, attack in plan.evaluations(study):
        write_evaluation(root, study, run, probe, attack)


def write_pretraining(root: Path, study: Study, run: str) -> None:
    """Write encoder, curve and record of one pretraining."""
    folder = plan.pretrain_folder(study, run)
    job = plan.jobs(study)[run]
    _write_bytes(root / folder / "encoder.safetensors", run)
    epochs = study.runs[job.entry].epochs
    start = 3 + zlib.crc32(run.encode()) % 5
    history = [
        {"epoch": epoch, "loss": start / epoch**0.5, "lr": 0.3 / epoch, "seconds": 3.0 * epoch}
        for epoch in range(1, epochs + 1)
    ]
    artifacts.write_jsonl(root / folder / "training.jsonl", history)
    spec = plan.pretrain_spec(study, run)
    write_record(root, study, folder, spec, seconds=60.0 * epochs + 6 * job.seed)


def write_head(root: Path, study: Study, run: str, probe: str) -> None:
    """Write head and record of one probe."""
    folder = plan.probe_folder(study, run, probe)
    _write_bytes(root / folder / "head.safetensors", run + probe)
    inputs = [plan.pretrain_folder(study, run) / "encoder.safetensors"]
    start = plan.head_start(study, probe)
    if start:
        inputs.append(plan.probe_folder(study, run, start) / "head.safetensors")
    write_record(root, study, folder, plan.probe_spec(study, run, probe), inputs=inputs)


def write_evaluation(root: Path, study: Study, run: str, probe: str, attack: str) -> None:
    """Write flags and record of one attack; accuracies fall with the radius."""
    folder = plan.attack_folder(study, run, probe, attack)
    inputs = [plan.pretrain_folder(study, run) / "encoder.safetensors"]
    if probe != "own":
        inputs.append(plan.probe_folder(study, run, probe) / "head.safetensors")
    flags = fake_flags(run, study.attacks[attack].eps, study.attacks[attack].images or IMAGES)
    (root / folder).mkdir(parents=True)
    save_file(flags, root / folder / "flags.safetensors")
    spec = plan.attack_spec(study, run, probe, attack)
    write_record(root, study, folder, spec, inputs=inputs)


def fake_flags(run: str, radii: tuple[float, ...], count: int) -> dict[str, np.ndarray]:
    """Return flags that are the same at every call; attacked ones are part of the clean ones."""
    skill = np.random.default_rng(zlib.crc32(run.encode())).normal(1.2, 1.0, count)
    flags = {f"eps_{eps:g}": (skill > eps / 8).astype(np.uint8) for eps in radii}
    index = np.arange(count, dtype=np.int64)
    return {"clean": (skill > 0).astype(np.uint8), **flags, "index": index, "labels": index % 10}


def write_record(
    root: Path,
    study: Study,
    folder: Path,
    spec: plan.Spec,
    *,
    inputs: list[Path] | None = None,
    seconds: float = 12.5,
) -> None:
    """Write record.json beside the outputs of a job, as `artifacts.write_record` would."""
    outputs = [path for path in sorted((root / folder).iterdir()) if path.name != "record.json"]
    record = {
        "stage": folder.parts[2],
        "name": "/".join(folder.parts[3:]),
        "study": study.study,
        "spec": spec,
        "inputs": {path.as_posix(): artifacts.sha256(root / path) for path in inputs or []},
        "outputs": {path.name: artifacts.sha256(path) for path in outputs},
        "code": {"digest": spec["code"], "commit": "abc1234", "dirty": False},
        "environment": {"python": "3.11.7", "torch": "2.11.0", "device": DEVICE, "threads": 1},
        "seed": spec["seed"],
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": seconds,
        "resumed": 0,
        "result": {},
    }
    artifacts.write_json(root / folder / "record.json", record)


def _write_bytes(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
