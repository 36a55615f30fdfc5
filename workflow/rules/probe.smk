# One head for each encoder and probe.


def head_files(run, probe):
    """Return what the training of a head leaves."""
    folder = plan.probe_folder(STUDY, run, probe).as_posix()
    return [f"{folder}/{name}" for name in ("head.safetensors", "training.jsonl", "record.json")]


def probe_inputs(wildcards):
    """Return the encoder, the training images, and the head that a robust probe starts from."""
    files = encoder_files(wildcards.run)[:1] + data_files(
        plan.jobs(STUDY)[wildcards.run].dataset, "train"
    )
    start = plan.head_start(STUDY, wildcards.probe)
    return files + (head_files(wildcards.run, start)[:1] if start else [])


rule probe:
    input:
        probe_inputs,
    output:
        head_files("{run}", "{probe}"),
    params:
        spec=lambda w: plan.to_json(plan.probe_spec(STUDY, w.run, w.probe)),
    log:
        LOGS + "/probe/{run}/{probe}.log",
    benchmark:
        LOGS + "/probe/{run}/{probe}.tsv"
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS,
    shell:
        "{ROBUSTVIEWS} probe {COMPUTE} --threads {threads} --run {wildcards.run:q}"
        " --probe {wildcards.probe:q} 2> {log:q}"
