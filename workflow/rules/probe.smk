# One head per encoder and probe, and the encoder once more if the probe tunes it.

TUNING = [name for name in STUDY.probes if networks.tunes(STUDY, name)]
NONE = "(?!)"  # matches no name


rule probe:
    input:
        reads("probe"),
    output:
        writes("probe", "{run}/{probe}"),
    log:
        f"{LOGS}/probe/{{run}}/{{probe}}.log",
    wildcard_constraints:
        probe="|".join(name for name in STUDY.probes if name not in TUNING) or NONE,
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


use rule probe as tune with:
    output:
        writes("probe", "{run}/{probe}"),
        f"{RESULTS}/probe/{{run}}/{{probe}}/{folders.ENCODER}",
    wildcard_constraints:
        probe="|".join(TUNING) or NONE,
    message:
        "tune {wildcards.run}/{wildcards.probe}"
