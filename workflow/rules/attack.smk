# One evaluation per encoder, head and attack, at all radii of the attack.


rule attack:
    input:
        reads("attack"),
    output:
        writes("attack", "{run}/{probe}/{attack}"),
    log:
        f"{LOGS}/attack/{{run}}/{{probe}}/{{attack}}.log",
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS,
        mem_mb=request("mem_mb", "attack"),
        runtime=request("runtime", "attack"),
    params:
        spec=spec("attack"),
    message:
        "attack {wildcards.run}/{wildcards.probe}/{wildcards.attack}"
    shell:
        "robustviews attack --threads {threads} --run {wildcards.run:q} --probe {wildcards.probe:q} --attack {wildcards.attack:q} 2> {log:q}"
