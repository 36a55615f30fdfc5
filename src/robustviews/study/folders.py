"""Where each job writes; no other module spells the names of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from robustviews.artifacts import RECORD, ArtifactError, read_json
from robustviews.study import networks
from robustviews.study.schema import Study
from robustviews.study.specs import data_spec, to_json

SUMMARY = "summary.json"  # classes and size of a data set; jobs read it instead of the record
FURTHER = "further"  # its key with the checksums of the images that fill more than one file
ENCODER = "encoder.safetensors"
HEAD = "head.safetensors"
FLAGS = "flags.safetensors"
CURVE = "training.jsonl"
STATE = Path("results/.state")  # of interrupted jobs; not an output of any rule
COMPILED = Path("results/.compiled")  # code from torch.compile, for the next start of any run

# What a job of each rule writes besides its record; `job_files` knows the jobs that write more.
OUTPUTS = {
    "data": (
        SUMMARY,
        "test_images.npy",
        "test_labels.npy",
        "train_images.npy",
        "train_labels.npy",
    ),
    "encoder": (ENCODER,),
    "pretrain": (ENCODER, CURVE),
    "probe": (HEAD, CURVE),
    "attack": (FLAGS,),
    "sanity": (FLAGS,),
}
TUNED = (HEAD, CURVE, ENCODER)  # of a probe that trains the encoder


def split_files(split: str) -> tuple[str, ...]:
    """Return the files of a prepared data set that a job reads: one split, and the summary."""
    return f"{split}_images.npy", f"{split}_labels.npy", SUMMARY


def pictures(task: str) -> str:
    """Return the name, without ending, of the adversarial images of a task, within the results."""
    return f"examples/{'adversarial' if task == 'classification' else task}"


def further(folder: Path) -> dict[str, str]:
    """Return the checksums, by name, of the files in which the images of a data set go on.

    Only the data show how many these are. The summary, which jobs read, states them; it is empty of
    them for a small data set. A summary that cannot be read is reported by those who need it.
    """
    if not (folder / SUMMARY).is_file():
        return {}
    try:
        found = read_json(folder / SUMMARY)
    except ArtifactError:
        return {}
    stated = found.get(FURTHER) if isinstance(found, dict) else None
    names = stated if isinstance(stated, dict) else {}
    return {name: str(checksum) for name, checksum in names.items() if Path(name).name == name}


def results_folder(study: Study) -> Path:
    """Return results/<study>."""
    return Path("results") / study.study


def data_folder(study: Study, dataset: str) -> Path:
    """Return the folder of a prepared data set; its name holds a hash of its spec."""
    key = hashlib.sha256(to_json(data_spec(study, dataset)).encode()).hexdigest()[:8]
    return Path("data") / f"{dataset}-{key}"


def job_folder(study: Study, rule: str, name: str) -> Path:
    """Return the folder of a computing job, by its rule and name."""
    if rule == "data":
        return Path("data") / name
    return results_folder(study) / ("pretrain" if rule == "encoder" else rule) / name


def job_files(study: Study, rule: str, name: str) -> tuple[Path, ...]:
    """Return the files that a computing job writes, its record last."""
    folder, files = job_folder(study, rule, name), OUTPUTS[rule]
    if rule == "probe" and networks.tunes(study, name.rpartition("/")[2]):
        files = TUNED
    return tuple(folder / file for file in (*files, RECORD))
