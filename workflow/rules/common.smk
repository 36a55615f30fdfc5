# Which files each stage leaves and reads: the one place that knows their names.

PREPARED = {folders.data_folder(STUDY, name).name: name for name in STUDY.datasets}
USED = dict.fromkeys(job.dataset for job in plan.jobs(STUDY).values())
HEADS = set(plan.heads(STUDY))


def prepared_files(prepared):
    """Return what the preparation of a data set leaves."""
    arrays = [f"{split}_{part}.npy" for split in ("train", "test") for part in ("images", "labels")]
    return [f"data/{prepared}/{name}" for name in (*arrays, "summary.json", "record.json")]


def data_files(dataset, split):
    """Return the arrays of a split, and the summary that knows classes and size."""
    folder = folders.data_folder(STUDY, dataset).as_posix()
    return [
        f"{folder}/{split}_images.npy",
        f"{folder}/{split}_labels.npy",
        f"{folder}/summary.json",
    ]


def encoder_files(run):
    """Return what a pretraining leaves."""
    folder = folders.pretrain_folder(STUDY, run).as_posix()
    return [f"{folder}/{name}" for name in ("encoder.safetensors", "training.jsonl", "record.json")]


def head_files(run, probe):
    """Return what the training of a head leaves."""
    folder = folders.probe_folder(STUDY, run, probe).as_posix()
    return [f"{folder}/{name}" for name in ("head.safetensors", "training.jsonl", "record.json")]


def flag_files(run, probe, attack):
    """Return what an evaluation leaves: which test images are still classified correctly."""
    folder = folders.attack_folder(STUDY, run, probe, attack).as_posix()
    return [f"{folder}/{name}" for name in ("flags.safetensors", "record.json")]


def probe_inputs(wildcards):
    """Return the encoder, the training images, and the head that a robust probe starts from."""
    files = encoder_files(wildcards.run)[:1] + data_files(
        plan.jobs(STUDY)[wildcards.run].dataset, "train"
    )
    start = plan.head_start(STUDY, wildcards.probe)
    return files + (head_files(wildcards.run, start)[:1] if start else [])


def attack_inputs(wildcards):
    """Return encoder, head (a supervised network brings its own) and test images."""
    files = encoder_files(wildcards.run)[:1] + data_files(
        plan.jobs(STUDY)[wildcards.run].dataset, "test"
    )
    if (wildcards.run, wildcards.probe) in HEADS:
        files += head_files(wildcards.run, wildcards.probe)[:1]
    return files


def cell_inputs(*blocks):
    """Return what the cells of tables and figures are read from; of all when none is given."""
    files = [file for run in plan.pretrainings(STUDY, *blocks) for file in encoder_files(run)]
    for run, probe, attack in plan.evaluations(STUDY, *blocks):
        files += flag_files(run, probe, attack)
        if (run, probe) in HEADS:
            files += head_files(run, probe)
    return files


def report_spec(rule, name=""):
    """Return what decides a table, figure or page besides the results."""
    return specs.to_json(specs.report_spec(STUDY, name, rule=rule))


def asked(what, rule):
    """Return how Snakemake learns what a rule's jobs ask a cluster for, after a failure more of it."""

    def ask(wildcards, attempt):
        names = [PREPARED.get(name, name) for name in wildcards]
        job = "/".join(names)
        wanted = allocation(STUDY, rule, job, device=DEVICE, attempt=attempt)
        return getattr(wanted, what)

    return ask
