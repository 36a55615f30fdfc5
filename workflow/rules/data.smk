# Verified, decoded data sets as uint8 arrays. A folder's name holds a hash of what made it, so that studies share it.


rule data:
    output:
        prepared_files("{prepared}"),
    log:
        "logs/data/{prepared}.log",
    benchmark:
        "logs/data/{prepared}.tsv"
    resources:
        mem_mb=asked("mem_mb", "data"),
        runtime=asked("runtime", "data"),
    params:
        spec=lambda w: specs.to_json(specs.data_spec(STUDY, PREPARED[w.prepared])),
        dataset=lambda w: PREPARED[w.prepared],
    message:
        "data {wildcards.prepared}"
    shell:
        "robustviews data --dataset {params.dataset:q} 2> {log:q}"
