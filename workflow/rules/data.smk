# Verified, decoded data sets as uint8 arrays. Folder names hold a hash of the spec, so that studies share folders.


rule data:
    output:
        writes("data", "{prepared}"),
    log:
        "logs/data/{prepared}.log",
    # Before any training: it may find that a data set is missing, or too small.
    priority: 20
    threads: request("cores", "data")
    resources:
        mem_mb=request("mem_mb", "data"),
        runtime=request("runtime", "data"),
    params:
        spec=lambda w: specs.to_json(specs.data_spec(STUDY, PREPARED[w.prepared])),
        dataset=lambda w: PREPARED[w.prepared],
    message:
        "data {wildcards.prepared}"
    shell:
        "robustviews data --dataset {params.dataset:q} 2> {log:q}"
