# One head for each encoder and probe.


rule probe:
    input:
        probe_inputs,
    output:
        head_files("{run}", "{probe}"),
    log:
        f"{LOGS}/probe/{{run}}/{{probe}}.log",
    benchmark:
        f"{LOGS}/probe/{{run}}/{{probe}}.tsv"
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS,
        mem_mb=asked("mem_mb", "probe"),
        runtime=asked("runtime", "probe"),
    params:
        spec=lambda w: specs.to_json(specs.probe_spec(STUDY, w.run, w.probe)),
    message:
        "probe {wildcards.run}/{wildcards.probe}"
    shell:
        "robustviews probe --threads {threads} --run {wildcards.run:q} --probe {wildcards.probe:q} 2> {log:q}"
