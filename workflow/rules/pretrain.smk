# One encoder for each run, data set and seed.

RANKS = STUDY.runtime.ranks
# On one machine, whose own name need not lead back to it.
ALONE = "torchrun --standalone --local-addr localhost"
LAUNCH = f"{ALONE} --nproc-per-node {RANKS} -- -m " if RANKS > 1 else ""


rule pretrain:
    input:
        reads("pretrain"),
    output:
        writes("pretrain", "{run}"),
    log:
        f"{LOGS}/pretrain/{{run}}.log",
    benchmark:
        f"{LOGS}/pretrain/{{run}}.tsv"
    priority: 10
    threads: STUDY.runtime.threads * RANKS
    resources:
        gpu=GPUS * RANKS,
        nodes=1,
        # No parameters, or another number of processes would have finished encoders trained again.
        program=f"{LAUNCH}robustviews pretrain",
        threads_each=STUDY.runtime.threads,
        mem_mb=asked("mem_mb", "pretrain"),
        runtime=asked("runtime", "pretrain"),
    params:
        spec=spec("pretrain"),
    message:
        "pretrain {wildcards.run}"
    shell:
        "{resources.program} --threads {resources.threads_each} --run {wildcards.run:q} 2> {log:q}"
