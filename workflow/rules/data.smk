# Verified, decoded data sets as uint8 arrays. A folder's name holds a hash of what made it, so that studies share it.


rule data:
    output:
        writes("data", "{prepared}"),
    log:
        "logs/data/{prepared}.log",
    benchmark:
        "logs/data/{prepared}.tsv"
    resources:
        mem_mb=asked("mem_mb", "data"),
        runtime=asked("runtime", "data"),
    params:
        spec=spec("data"),
        dataset=lambda w: PREPARED[w.prepared],
    message:
        "data {wildcards.prepared}"
    shell:
        "robustviews data --dataset {params.dataset:q} 2> {log:q}"
