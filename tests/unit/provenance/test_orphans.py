"""Orphaned files: what no job writes is listed and, with --yes, removed; nothing else ever."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.cli import main
from robustviews.provenance import orphans
from robustviews.study import folders, load_study, plan
from robustviews.workflow import locks, metadata
from tests.unit.results_tree import write_shown, write_tree

STUDY = """\
study: tiny
title: A tiny study
seeds: [0]
datasets:
  digits: {kind: digits, size: 8, test: 1000}
defaults:
  all: {datasets: [digits], epochs: 1}
runs:
  emp: {method: emp_ssl, views: {count: 2}, regime: {kind: free, replays: 2}}
  simclr: {method: simclr, regime: standard}
probes:
  central: {kind: linear, epochs: 2}
attacks:
  pgd2: {kind: pgd, eps: [8], steps: 2, step_size: 5}
tables:
  table1:
    title: A table
    columns: [digits/clean, digits/pgd2/8]
    rows:
      emp: {run: emp, probe: central}
      simclr: {run: simclr, probe: central}
  table2:
    title: Another
    columns: [digits/clean]
    rows:
      emp: {run: emp, probe: central}
figures: {}
"""
WITHOUT = """\
      simclr: {run: simclr, probe: central}
"""
RUN = "simclr-digits-s0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished project, with logs and metadata as Snakemake leaves them."""
    root = tmp_path_factory.mktemp("finished")
    (root / "params.yaml").write_text(STUDY)
    study = load_study(root / "params.yaml")
    write_tree(root, study)
    write_shown(root, study)
    made = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    for run in plan.pretrainings(study):
        artifacts.write_text(root / f"logs/tiny/pretrain/{run}.log", "")
        artifacts.write_text(root / f"logs/tiny/probe/{run}/central.log", "")
    for name in ("table-table1", "table-table2", "frame", "report"):
        artifacts.write_text(root / f"logs/tiny/report/{name}.log", "")
    for path in made:
        if path.parts[0] in ("results", "data"):
            artifacts.write_text(root / entry(path), "{}")
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it, where the test stands."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")


def entry(path):
    """Return where Snakemake keeps its metadata of an output with a name that is not too long."""
    return metadata.FOLDER / base64.urlsafe_b64encode(str(path).encode()).decode()


def edit(old, new, file="params.yaml"):
    text = Path(file).read_text()
    assert text.count(old) == 1
    Path(file).write_text(text.replace(old, new))


def orphaned(file="params.yaml"):
    """Return the orphaned files, of metadata the outputs that they are about."""
    paths = orphans.find(load_study(file))
    return [
        f"metadata of {metadata.output_of(path)}"
        if path.is_relative_to(metadata.FOLDER)
        else str(path)
        for path in paths
    ]


def everything():
    return {str(path) for path in Path().rglob("*") if path.is_symlink() or not path.is_dir()}


@pytest.mark.usefixtures("project")
def test_a_finished_study_has_no_orphans(capsys):
    assert orphaned() == []
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out == "tiny: no orphaned files\n"


@pytest.mark.usefixtures("project")
def test_a_removed_run_is_listed_with_all_its_files_and_then_removed(capsys):
    before = everything()
    edit(WITHOUT, "")
    results = {name for name in before if name.startswith("results/") and RUN in name}
    logs = {name for name in before if name.startswith("logs/") and RUN in name}
    assert (len(results), len(logs)) == (3 + 3 + 2 + 2, 2)
    entries = {f"metadata of {name}" for name in results}
    assert set(orphaned()) == results | logs | entries
    assert main(["prune"]) == 0
    listed = capsys.readouterr().out
    assert f"  logs/tiny/pretrain: {RUN}.log\n" in listed
    assert "  .snakemake/metadata: 10 entries\n" in listed
    assert "tiny: 22 orphaned files, " in listed
    assert listed.endswith("to remove them: robustviews prune --yes\n")
    assert everything() == before
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out.endswith(": removed\n")
    assert before - everything() == results | logs | {str(entry(name)) for name in results}
    assert not Path(f"results/tiny/attack/{RUN}").exists()


@pytest.mark.usefixtures("project")
def test_a_removed_table_leaves_files_and_a_log():
    edit("  table2:\n    title: Another\n    columns: [digits/clean]\n    rows:\n", "")
    edit("      emp: {run: emp, probe: central}\nfigures", "figures")
    files = [f"results/tiny/tables/table2.{kind}" for kind in ("csv", "md", "tex")]
    assert orphaned() == [
        "logs/tiny/report/table-table2.log",
        *files,
        *map("metadata of {}".format, files),
    ]


@pytest.mark.usefixtures("project")
def test_files_of_other_studies_of_people_and_of_running_jobs_are_left_alone():
    for name in (
        "results/other/pretrain/x/encoder.safetensors",
        "results/tiny/notes.txt",
        "results/tiny/manifest.json",
        f"results/tiny/pretrain/.{RUN}.lock",
        f"results/tiny/pretrain/.{RUN}.abcd1234/encoder.safetensors",
        f"results/.state/other/x-{16 * '0'}/state.safetensors",
        "data/raw/cifar-12345678/cifar.tar.gz",
        "data/mine.txt",
        "data/my-pictures/1.png",
        "logs/other/pretrain/x.log",
        entry("results/other/pretrain/x/encoder.safetensors"),
        metadata.FOLDER / "no base64!",
    ):
        artifacts.write_text(Path(name), "")
    assert orphaned() == []


@pytest.mark.usefixtures("project")
def test_data_are_orphaned_only_when_no_study_file_names_them():
    folder = folders.data_folder(load_study("params.yaml"), "digits")
    artifacts.write_text(Path(f"logs/data/{folder.name}.log"), "")
    artifacts.write_text(Path("studies/other.yaml"), STUDY.replace("study: tiny", "study: other"))
    edit("size: 8", "size: 16")
    assert orphaned() == []
    Path("studies/other.yaml").unlink()
    files = sorted(map(str, folder.iterdir()))
    entries = [f"metadata of {file}" for file in files]
    assert orphaned()[: 1 + len(files)] == [*files, f"logs/data/{folder.name}.log"]
    assert set(entries) <= set(orphaned())
    main(["prune", "--yes"])
    assert not folder.exists()


@pytest.mark.usefixtures("project")
def test_data_of_the_study_at_hand_count_wherever_its_file_lies():
    artifacts.write_text(Path("mine.yaml"), STUDY.replace("size: 8", "size: 16"))
    summary = folders.data_folder(load_study("mine.yaml"), "digits") / "summary.json"
    artifacts.write_text(summary, "{}")
    assert orphaned("params.yaml") == [str(summary)]
    assert orphaned(str(Path("mine.yaml").absolute())) == []


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("studies/broken.yaml", "study file that does not load"),
        (".snakemake/locks/0.input.lock", "snakemake --unlock"),
    ],
)
@pytest.mark.usefixtures("project")
def test_nothing_is_removed_with_a_broken_study_or_while_snakemake_runs(file, advice, capsys):
    edit(WITHOUT, "")
    artifacts.write_text(Path(file), "study: [")
    before = everything()
    assert main(["prune", "--yes"]) == 2
    message = capsys.readouterr().err
    assert file.split("/")[0] in message
    assert advice in message
    assert everything() == before


@pytest.mark.usefixtures("project")
def test_nothing_is_removed_while_a_job_of_the_study_runs(capsys):
    edit(WITHOUT, "")
    folder = Path("results/tiny/pretrain") / RUN  # of which the study has no job any more
    before = everything()
    with locks.acquire(folder, f"pretrain {RUN}"):
        assert main(["prune", "--yes"]) == 2
    message = capsys.readouterr().err
    assert f"nothing was removed: pretrain {RUN} (PID " in message
    assert everything() == before


@pytest.mark.usefixtures("project")
def test_a_state_is_kept_while_its_job_is_not_finished():
    for name in (RUN, f"{RUN}-central", f"{RUN}-central-pgd2", "gone"):
        artifacts.write_text(Path(f"results/.state/tiny/{name}-{16 * '0'}/state.safetensors"), "")
    assert len(orphaned()) == 4
    Path(f"results/tiny/probe/{RUN}/central/record.json").unlink()
    # The attack waits for the head, and so do the checks, whose state is named after the run alone.
    assert orphaned() == [f"results/.state/tiny/gone-{16 * '0'}/state.safetensors"]


@pytest.mark.usefixtures("project")
def test_of_a_link_only_the_link_is_removed(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.move(f"results/tiny/pretrain/{RUN}", elsewhere)
    Path(f"results/tiny/pretrain/{RUN}").symlink_to(elsewhere)
    assert orphaned() == []
    edit(WITHOUT, "")
    assert main(["prune", "--yes"]) == 0
    assert not Path(f"results/tiny/pretrain/{RUN}").is_symlink()
    assert (elsewhere / "encoder.safetensors").exists()


@pytest.mark.usefixtures("project")
def test_metadata_are_found_though_their_file_is_gone_or_its_name_is_long():
    output = f"results/tiny/pretrain/{'x' * 300}/encoder.safetensors"
    name = base64.urlsafe_b64encode(output.encode()).decode()
    artifacts.write_text(metadata.FOLDER / f"@{name[:254]}" / name[254:], "{}")
    assert orphaned() == [f"metadata of {output}"]
    assert main(["prune", "--yes"]) == 0
    assert not (metadata.FOLDER / f"@{name[:254]}").exists()


@pytest.mark.usefixtures("project")
def test_commands_name_the_study_and_dvc_where_it_is_in_use(capsys):
    Path("params.yaml").rename("mine.yaml")
    edit(WITHOUT, "", "mine.yaml")
    assert main(["prune", "--study", "mine.yaml"]) == 0
    assert capsys.readouterr().out.endswith("robustviews prune --yes --study mine.yaml\n")
    Path("dvc.lock").write_text("")
    assert main(["prune", "--yes", "--study", "mine.yaml"]) == 0
    assert capsys.readouterr().out.endswith("type: dvc repro   (no job will run)\n")
