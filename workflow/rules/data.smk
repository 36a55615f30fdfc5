# Verified, decoded data sets as uint8 arrays. A folder's name holds a hash of what made it, so that studies share it.

PREPARED = {plan.data_folder(STUDY, name).name: name for name in STUDY.datasets}


def data_files(dataset, split):
    """Return the arrays of a split, and the record that knows classes and size."""
    folder = plan.data_folder(STUDY, dataset).as_posix()
    return [f"{folder}/{split}_images.npy", f"{folder}/{split}_labels.npy", f"{folder}/record.json"]


rule data:
    output:
        expand(
            "data/{{prepared}}/{split}_{part}.npy",
            split=["train", "test"],
            part=["images", "labels"],
        ),
        "data/{prepared}/record.json",
    params:
        spec=lambda w: plan.to_json(plan.data_spec(STUDY, PREPARED[w.prepared])),
        dataset=lambda w: PREPARED[w.prepared],
    log:
        "logs/data/{prepared}.log",
    benchmark:
        "logs/data/{prepared}.tsv"
    shell:
        "{ROBUSTVIEWS} data {ARGUMENTS} --dataset {params.dataset:q} 2> {log:q}"
