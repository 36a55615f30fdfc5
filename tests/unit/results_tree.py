"""A small study and a results tree as its jobs would leave it, without any training."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from robustviews import artifacts, sanity
from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.datasets import Digits
from robustviews.methods import EmpSsl, SimClr, Supervised
from robustviews.probe import OWN_HEAD, LinearProbe, RobustLinearProbe
from robustviews.provenance.seal import sealed
from robustviews.regimes import Free, Pgd
from robustviews.reporting import results
from robustviews.reporting.tables import TABLES, writers
from robustviews.reporting.tables.metrics import headline, metrics
from robustviews.study import folders, jobs, plan, specs
from robustviews.study.schema import Claim, Figure, Row, Run, Study, Table

IMAGES = 200
DEVICE = "cpu: Abacus 3000"
PACKAGES = {
    "numpy": "2.4.6",
    "pillow": "12.1.0",
    "pyautoattack": "0.3.0",
    "safetensors": "0.7.0",
    "scikit-learn": "1.8.0",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
}
LOCK = "# Of this tree alone.\n" + "".join(
    f"{name}=={version} ; python_version > '3' \\\n    --hash=sha256:0\n"
    for name, version in PACKAGES.items()
)
# One stage after the other, an hour apart; heads that start from others come last.
HOURS = {"data": 0, "pretrain": 1, "probe": 3, "attack": 5, "sanity": 6}
COLUMNS = ("digits/clean", "digits/pgd20/4", "digits/pgd20/8", "digits/minutes")
ROWS = {
    "free": Row("emp-free3", "rle", published=(75.88, 55.97, "unavailable", 97)),
    "pgd": Row("simclr-pgd5", "rle", label="SimCLR | PGD_5", published=(72.86, 47.98, None, 934)),
    "supervised": Row("supervised-free3", "own"),
}


def small_study(**changes: Any) -> Study:
    """Return a study of three runs, one with three seeds, two tables, three figures, a claim."""
    figure: dict[str, Any] = {"title": "A figure", "columns": COLUMNS[:3], "rows": ROWS}
    options: dict[str, Any] = {
        "study": "tiny",
        "title": "A tiny study",
        "datasets": {"digits": Digits(test=IMAGES)},
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
        "claims": {"F2": Claim("crops beat SimCLR", "table1", ("free > pgd",))},
    }
    return Study(**(options | changes))


def write_tree(root: Path, study: Study) -> None:
    """Write what every job with a record leaves, and the lock, below a project folder."""
    artifacts.write_text(root / "requirements.lock", LOCK)
    for dataset in dict.fromkeys(job.dataset for job in plan.pretrainings(study).values()):
        write_data(root, study, dataset)
    for run in plan.pretrainings(study):
        write_pretraining(root, study, run)
    for run, probe in sorted(plan.heads(study), key=lambda head: head[1] != "central"):
        write_head(root, study, run, probe)
    for run, probe, attack in plan.evaluations(study):
        write_evaluation(root, study, run, probe, attack)
    for run in plan.attacked(study):
        write_sanity(root, study, run)


def write_shown(root: Path, study: Study) -> None:
    """Write frame, metrics and tables as they follow from the results, and blank pictures."""
    folder = root / folders.results_folder(study)
    frame = results.frame(study, root)
    artifacts.write_text(folder / "frame.csv", results.to_csv(frame))
    artifacts.write_json(folder / "metrics.json", metrics(study, frame))
    artifacts.write_json(folder / "headline.json", headline(study, frame))
    kinds = {".md": writers.markdown, ".csv": writers.csv, ".tex": writers.latex}
    for name, table in study.tables.items():
        made = TABLES[table.kind](study, table, results.frame(study, root, blocks=[table]))
        for suffix, write in kinds.items():
            artifacts.write_text((folder / "tables" / name).with_suffix(suffix), write(made))
    for job in jobs.jobs(study).values():
        for path in job.writes:
            if not (root / path).exists():
                page = path.suffix == ".html"
                _write_bytes(root / path, sealed(path.name) if page else path.name)


def write_data(root: Path, study: Study, dataset: str) -> None:
    """Write a prepared data set of blank images; labels go round."""
    folder = folders.data_folder(study, dataset)
    (root / folder).mkdir(parents=True)
    for split, count in (("train", 2 * IMAGES), ("test", IMAGES)):
        np.save(root / folder / f"{split}_images.npy", np.zeros((count, 3, 8, 8), np.uint8))
        np.save(root / folder / f"{split}_labels.npy", np.arange(count) % 10)
    artifacts.write_json(root / folder / "summary.json", {"classes": 10, "size": 8})
    write_record(root, study, folder, specs.data_spec(study, dataset))


def data_files(study: Study, run: str, split: str) -> list[Path]:
    """Return what a job of a run reads of its data set."""
    folder = folders.data_folder(study, plan.pretrainings(study)[run].dataset)
    return [
        folder / name for name in (f"{split}_images.npy", f"{split}_labels.npy", "summary.json")
    ]


def write_pretraining(root: Path, study: Study, run: str) -> None:
    """Write encoder, curve and record of one pretraining."""
    folder = folders.job_folder(study, "pretrain", run)
    job = plan.pretrainings(study)[run]
    _write_bytes(root / folder / "encoder.safetensors", run)
    epochs = study.runs[job.entry].epochs
    start = 3 + zlib.crc32(run.encode()) % 5
    seconds = 60.0 * epochs + 6 * job.seed
    history = [
        {
            "epoch": epoch,
            "loss": start / epoch**0.5,
            "lr": 0.3 / epoch,
            "seconds": seconds * epoch / epochs,
        }
        for epoch in range(1, epochs + 1)
    ]
    artifacts.write_jsonl(root / folder / "training.jsonl", history)
    spec = specs.spec(study, "pretrain", run)
    inputs = data_files(study, run, "train")
    write_record(root, study, folder, spec, inputs=inputs, seconds=seconds)


def write_head(root: Path, study: Study, run: str, probe: str) -> None:
    """Write head and record of one probe."""
    folder = folders.job_folder(study, "probe", f"{run}/{probe}")
    _write_bytes(root / folder / "head.safetensors", run + probe)
    artifacts.write_jsonl(root / folder / "training.jsonl", [{"epoch": 1, "loss": 1.0}])
    inputs = [folders.job_folder(study, "pretrain", run) / "encoder.safetensors"]
    inputs += data_files(study, run, "train")
    start = study.probes[probe].starts_from
    if start:
        inputs.append(folders.job_folder(study, "probe", f"{run}/{start}") / "head.safetensors")
    spec = specs.spec(study, "probe", f"{run}/{probe}")
    write_record(root, study, folder, spec, inputs=inputs, later=bool(start))


def write_evaluation(root: Path, study: Study, run: str, probe: str, attack: str) -> None:
    """Write flags and record of one attack; accuracies fall with the radius."""
    folder = folders.job_folder(study, "attack", f"{run}/{probe}/{attack}")
    inputs = list(jobs.jobs(study)["attack", f"{run}/{probe}/{attack}"].reads)
    flags = fake_flags(run, study.attacks[attack].eps, study.attacks[attack].images or IMAGES)
    (root / folder).mkdir(parents=True)
    save_file(flags, root / folder / "flags.safetensors")
    spec = specs.spec(study, "attack", f"{run}/{probe}/{attack}")
    later = bool(plan.parts(study, attack))
    write_record(root, study, folder, spec, inputs=inputs, later=later)


def write_sanity(root: Path, study: Study, run: str, **changes: float) -> None:
    """Write the flags and the record of checks that all heads of a run pass.

    Args:
        root: project folder.
        study: the study.
        run: name of the pretraining.
        changes: other measures than those of a head that passes.
    """
    job, options = jobs.jobs(study)["sanity", run], study.sanity
    assert job.folder is not None
    right = {f"pgd_{radius:g}": max(0, 20 - int(radius)) for radius in options.radii}
    right |= {"fgsm": 16, "square": 12, "margin": 11, "transfer": 12}
    right |= {f"restarts/{number}": 12 for number in range(options.restarts)}
    right |= {f"noise/{draw}": 19 for draw in range(10)}
    values: dict[str, float] = {"zero_gradients": 0, "infinite_gradients": 0, "wrong_gradients": 0}
    values |= {"repeat_difference": 0.0, "batch_difference": 0.0}
    values |= {"training_mode": 0.0, "probabilities": 0.0}
    index = np.arange(20, dtype=np.int64)
    flags: dict[str, Any] = {
        name: (index < count).astype(np.uint8) for name, count in right.items()
    }
    flags |= {"index": index, "labels": index % 10}
    measures = sanity.measures_of(flags) | values | changes
    result = {"measures": measures, "failed": sanity.failed(measures, options)}
    heads = plan.attacked(study)[run]
    (root / job.folder).mkdir(parents=True, exist_ok=True)
    every = {f"{probe}/{name}": flag for probe in heads for name, flag in flags.items()}
    save_file(every, root / job.folder / "flags.safetensors")
    results = dict.fromkeys(heads, result)
    write_record(root, study, job.folder, job.spec, inputs=list(job.reads), result=results)


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
    spec: specs.Spec,
    *,
    inputs: list[Path] | None = None,
    seconds: float = 12.5,
    later: bool = False,
    result: dict[str, Any] | None = None,
) -> None:
    """Write record.json beside the outputs of a job, as `artifacts.write_record` would."""
    is_data = folder.parts[0] == "data"
    stage = "data" if is_data else folder.parts[2]
    outputs = [path for path in sorted((root / folder).iterdir()) if path.name != "record.json"]
    record = {
        "stage": stage,
        "name": folder.name if is_data else "/".join(folder.parts[3:]),
        "study": study.study,
        "spec": spec,
        "inputs": {path.as_posix(): artifacts.sha256(root / path) for path in inputs or []},
        "outputs": {path.name: artifacts.sha256(path) for path in outputs},
        "code": {"digest": spec["code"], "commit": "abc1234", "dirty": False},
        "environment": {
            "lock": artifacts.sha256(root / "requirements.lock"),
            "packages": dict(PACKAGES),
            "image": None,
            "python": "3.11.7",
            "torch": "2.11.0+cpu",
            "device": DEVICE,
            "threads": 1,
            "deterministic": True,
            "cpu_capability": "AVX2",
        },
        "seed": spec.get("seed"),
        "started": f"2026-01-01T{HOURS[stage] + later:02}:00:00Z",
        "seconds": seconds,
        "resumed": 0,
        "result": result or {},
    }
    artifacts.write_json(root / folder / "record.json", record)


def _write_bytes(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
