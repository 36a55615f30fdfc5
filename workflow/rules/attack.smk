# One evaluation for each encoder, head and attack, at all radii of the attack.


def flag_files(run, probe, attack):
    """Return what an evaluation leaves: which test images are still classified correctly."""
    folder = plan.attack_folder(STUDY, run, probe, attack).as_posix()
    return [f"{folder}/{name}" for name in ("flags.safetensors", "record.json")]


def attack_inputs(wildcards):
    """Return encoder, head (a supervised network brings its own) and test images."""
    files = encoder_files(wildcards.run)[:1] + data_files(
        plan.jobs(STUDY)[wildcards.run].dataset, "test"
    )
    if (wildcards.run, wildcards.probe) in HEADS:
        files += head_files(wildcards.run, wildcards.probe)[:1]
    return files


HEADS = set(plan.heads(STUDY))


rule attack:
    input:
        attack_inputs,
    output:
        flag_files("{run}", "{probe}", "{attack}"),
    params:
        spec=lambda w: plan.to_json(plan.attack_spec(STUDY, w.run, w.probe, w.attack)),
    log:
        LOGS + "/attack/{run}/{probe}/{attack}.log",
    benchmark:
        LOGS + "/attack/{run}/{probe}/{attack}.tsv"
    threads: STUDY.runtime.threads
    resources:
        gpu=GPUS,
    shell:
        "{ROBUSTVIEWS} attack {COMPUTE} --threads {threads} --run {wildcards.run:q}"
        " --probe {wildcards.probe:q} --attack {wildcards.attack:q} 2> {log:q}"
