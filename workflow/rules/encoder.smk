# One encoder per entry of `encoders`, from a checkpoint of another program. Its spec holds the checksum of the file.


rule encoder:
    output:
        writes("encoder", "{encoder}"),
    log:
        f"{LOGS}/encoder/{{encoder}}.log",
    resources:
        mem_mb=request("mem_mb", "encoder"),
        runtime=request("runtime", "encoder"),
    params:
        spec=spec("encoder"),
    message:
        "encoder {wildcards.encoder}"
    shell:
        "robustviews encoder --encoder {wildcards.encoder:q} 2> {log:q}"
