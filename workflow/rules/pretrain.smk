# One encoder per run, data set and seed.

RANKS = STUDY.runtime.ranks
# On one machine, whose host name may not resolve.
TORCHRUN = "torchrun --standalone --local-addr localhost"
LAUNCH = f"{TORCHRUN} --nproc-per-node {RANKS} -- -m " if RANKS > 1 else ""


rule pretrain:
    input:
        reads("pretrain"),
    output:
        writes("pretrain", "{run}"),
    log:
        f"{LOGS}/pretrain/{{run}}.log",
    wildcard_constraints:
        run="|".join(plan.pretrainings(STUDY)) or "(?!)",  # an imported encoder is none
    priority: 10
    threads: STUDY.runtime.threads * RANKS
    resources:
        gpu=GPUS * RANKS,
        nodes=1,
        # Not parameters: another number of processes must not retrain finished encoders.
        program=f"{LAUNCH}robustviews pretrain",
        threads_each=STUDY.runtime.threads,
        # Of Slurm: more than the threads where a training is compiled.
        cpus_per_task=request("cores", "pretrain"),
        mem_mb=request("mem_mb", "pretrain"),
        runtime=request("runtime", "pretrain"),
    params:
        spec=spec("pretrain"),
    message:
        "pretrain {wildcards.run}"
    shell:
        "{resources.program} --threads {resources.threads_each} --run {wildcards.run:q} 2> {log:q}"
