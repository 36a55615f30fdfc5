# Whether the attacks on all heads of one encoder are established. One job per encoder, since starting a process takes
# longer than checking a small head.


rule sanity:
    input:
        reads("sanity"),
    output:
        writes("sanity", "{run}"),
    log:
        f"{LOGS}/sanity/{{run}}.log",
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS,
        mem_mb=request("mem_mb", "sanity"),
        runtime=request("runtime", "sanity"),
    params:
        spec=spec("sanity"),
    message:
        "sanity {wildcards.run}"
    shell:
        "robustviews sanity --threads {threads} --run {wildcards.run:q} 2> {log:q}"
