# One head per encoder and probe.


rule probe:
    input:
        reads("probe"),
    output:
        writes("probe", "{run}/{probe}"),
    log:
        f"{LOGS}/probe/{{run}}/{{probe}}.log",
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS,
        mem_mb=request("mem_mb", "probe"),
        runtime=request("runtime", "probe"),
    params:
        spec=spec("probe"),
    message:
        "probe {wildcards.run}/{wildcards.probe}"
    shell:
        "robustviews probe --threads {threads} --run {wildcards.run:q} --probe {wildcards.probe:q} 2> {log:q}"
