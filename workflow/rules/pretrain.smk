# One encoder for each run, data set and seed.


rule pretrain:
    input:
        lambda w: data_files(plan.jobs(STUDY)[w.run].dataset, "train"),
    output:
        encoder_files("{run}"),
    log:
        f"{LOGS}/pretrain/{{run}}.log",
    benchmark:
        f"{LOGS}/pretrain/{{run}}.tsv"
    priority: 10
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS * allocation.ranks(STUDY),
        cpus_per_task=STUDY.runtime.threads * allocation.ranks(STUDY),
        nodes=1,
        mem_mb=asked("mem_mb", "pretrain"),
        runtime=asked("runtime", "pretrain"),  # tried again it goes on from its state
    params:
        spec=lambda w: plan.to_json(plan.pretrain_spec(STUDY, w.run)),
    message:
        "pretrain {wildcards.run}"
    shell:
        "robustviews pretrain --threads {threads} --run {wildcards.run:q} 2> {log:q}"
