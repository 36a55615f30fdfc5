# One encoder for each run, data set and seed.


def encoder_files(run):
    """Return what a pretraining leaves."""
    folder = plan.pretrain_folder(STUDY, run).as_posix()
    return [f"{folder}/{name}" for name in ("encoder.safetensors", "training.jsonl", "record.json")]


rule pretrain:
    input:
        lambda w: data_files(plan.jobs(STUDY)[w.run].dataset, "train"),
    output:
        encoder_files("{run}"),
    params:
        spec=lambda w: plan.to_json(plan.pretrain_spec(STUDY, w.run)),
    log:
        LOGS + "/pretrain/{run}.log",
    benchmark:
        LOGS + "/pretrain/{run}.tsv"
    threads: STUDY.runtime.threads
    priority: 10
    resources:
        gpu=GPUS,
    shell:
        "{ROBUSTVIEWS} pretrain {COMPUTE} --threads {threads} --run {wildcards.run:q} 2> {log:q}"
