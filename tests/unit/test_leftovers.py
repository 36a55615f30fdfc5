"""Leftovers: what no job has any more is listed and, told so, removed; nothing else ever."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.artifacts.resume import Resume
from robustviews.cli import main
from robustviews.cli.jobs import STATE
from robustviews.provenance import leftovers
from robustviews.provenance.leftovers import LeftoverError
from robustviews.study import folders, jobs, load_study, plan
from robustviews.workflow import locks
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
  pgd2: {kind: pgd, eps: [8], steps: 2}
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
    """A finished project, with logs and notes as Snakemake leaves them."""
    root = tmp_path_factory.mktemp("finished")
    (root / "params.yaml").write_text(STUDY)
    study = load_study(root / "params.yaml")
    write_tree(root, study)
    write_shown(root, study)
    made = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    for run in plan.jobs(study):
        for end in ("log", "tsv"):
            artifacts.write_text(root / f"logs/tiny/pretrain/{run}.{end}", "")
            artifacts.write_text(root / f"logs/tiny/probe/{run}/central.{end}", "")
    for name in ("table-table1", "table-table2", "frame", "report"):
        artifacts.write_text(root / f"logs/tiny/report/{name}.log", "")
    for path in made:
        if path.parts[0] in ("results", "data"):
            artifacts.write_text(root / note(path), "{}")
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it, where the test stands."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")


def note(path):
    """Return where Snakemake keeps its note on an output with a name that is not too long."""
    return Path(".snakemake/metadata") / base64.urlsafe_b64encode(str(path).encode()).decode()


def edit(old, new, file="params.yaml"):
    text = Path(file).read_text()
    assert text.count(old) == 1
    Path(file).write_text(text.replace(old, new))


def found(file="params.yaml"):
    return leftovers.find(load_study(file), file, states=STATE)


def paths(file="params.yaml"):
    return [each.path.as_posix() for each in found(file)]


def everything():
    return {path.as_posix() for path in Path().rglob("*") if not path.is_dir()}


@pytest.mark.usefixtures("project")
def test_a_finished_study_has_no_leftovers(capsys):
    assert found() == []
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out == "tiny: nothing is left over\n"


@pytest.mark.usefixtures("project")
def test_a_removed_run_is_listed_with_all_that_it_left_and_then_removed(capsys):
    before = everything()
    edit(WITHOUT, "")
    assert paths() == [
        f"results/tiny/pretrain/{RUN}",
        f"results/tiny/probe/{RUN}",
        f"results/tiny/attack/{RUN}",
        f"logs/tiny/pretrain/{RUN}.log",
        f"logs/tiny/pretrain/{RUN}.tsv",
        f"logs/tiny/probe/{RUN}",
        ".snakemake/metadata",
    ]
    assert main(["prune"]) == 0
    listed = capsys.readouterr().out
    assert f"results/tiny/pretrain/{RUN}  (results of no job)\n" in listed
    assert "8 notes of Snakemake on files of no job" in listed
    assert listed.endswith("to remove them: robustviews prune --yes\n")
    assert everything() == before
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out.endswith(": removed\n")
    gone = before - everything()
    notes = {name for name in gone if name.startswith(".snakemake/")}
    assert all(RUN in base64.urlsafe_b64decode(Path(name).name).decode() for name in notes)
    assert all(RUN in name for name in gone - notes)
    assert (len(notes), len(gone - notes)) == (8, 12)
    assert found() == []


@pytest.mark.usefixtures("project")
def test_size_is_that_of_all_files_of_a_leftover():
    edit(WITHOUT, "")
    first = found()[0]
    assert first.size == sum(path.stat().st_size for path in first.path.iterdir())


@pytest.mark.usefixtures("project")
def test_a_removed_table_leaves_files_and_a_log():
    edit("  table2:\n    title: Another\n    columns: [digits/clean]\n    rows:\n", "")
    edit("      emp: {run: emp, probe: central}\nfigures", "figures")
    assert paths() == [
        *(f"results/tiny/tables/table2.{kind}" for kind in ("csv", "md", "tex")),
        "logs/tiny/report/table-table2.log",
        ".snakemake/metadata",
    ]


@pytest.mark.usefixtures("project")
def test_results_of_other_studies_and_what_people_put_there_are_left_alone():
    for name in ("results/other/pretrain/x/encoder.safetensors", "results/tiny/notes.txt"):
        artifacts.write_text(Path(name), "")
    for name in ("data/raw/cifar.tar.gz", "data/mine.txt", "logs/other/pretrain/x.log"):
        artifacts.write_text(Path(name), "")
    artifacts.write_text(note("results/other/pretrain/x/encoder.safetensors"), "{}")
    artifacts.write_text(Path(".snakemake/metadata/no base64!"), "")
    assert found() == []


@pytest.mark.usefixtures("project")
def test_data_are_left_over_only_when_no_study_file_uses_them(capsys):
    folder = folders.data_folder(load_study("params.yaml"), "digits")
    artifacts.write_text(Path(f"logs/data/{folder.name}.log"), "")
    artifacts.write_text(Path("studies/other.yaml"), STUDY.replace("study: tiny", "study: other"))
    edit("size: 8", "size: 16")
    assert folder.as_posix() not in paths()
    Path("studies/other.yaml").unlink()
    assert {folder.as_posix(), f"logs/data/{folder.name}.log"} <= set(paths())
    main(["prune"])
    assert "(data that no study uses: not params.yaml)" in capsys.readouterr().out
    main(["prune", "--yes"])
    assert not folder.exists()
    assert not any("data/" in base64.urlsafe_b64decode(path.name).decode() for path in notes())


def notes():
    return list(Path(".snakemake/metadata").iterdir())


@pytest.mark.usefixtures("project")
def test_data_of_the_study_at_hand_count_wherever_its_file_lies():
    artifacts.write_text(Path("mine.yaml"), STUDY.replace("size: 8", "size: 16"))
    study = load_study("mine.yaml")
    artifacts.write_text(folders.data_folder(study, "digits") / "summary.json", "{}")
    assert folders.data_folder(study, "digits").as_posix() in paths("params.yaml")
    assert folders.data_folder(study, "digits").as_posix() not in paths("mine.yaml")


@pytest.mark.usefixtures("project")
def test_nothing_is_pruned_while_a_study_file_does_not_load(capsys):
    edit(WITHOUT, "")
    artifacts.write_text(Path("studies/broken.yaml"), "study: [")
    before = everything()
    assert main(["prune", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "studies/broken.yaml" in said
    assert "Nothing was removed" in said
    assert everything() == before


@pytest.mark.usefixtures("project")
def test_nothing_is_removed_while_snakemake_is_at_work():
    edit(WITHOUT, "")
    artifacts.write_text(Path(".snakemake/locks/0.input.lock"), "")
    before = everything()
    with pytest.raises(LeftoverError, match="snakemake --unlock"):
        leftovers.remove(found())
    assert everything() == before


JOBS = [("pretrain", RUN), ("probe", f"{RUN}/central"), ("attack", f"{RUN}/central/pgd2")]


@pytest.mark.parametrize("key", JOBS, ids=[rule for rule, _ in JOBS])
@pytest.mark.usefixtures("project")
def test_a_state_counts_only_while_a_job_would_go_on_from_it(key):
    study, name = load_study("params.yaml"), key[1].replace("/", "-")
    record = artifacts.read_json(jobs.jobs(study)[key].folder / "record.json")
    read = [Path(path) for path in record["inputs"]]
    state = Resume(STATE / "tiny" / name, record["spec"], read, 1).folder
    stale, foreign = STATE / "tiny" / f"{name}-{16 * '0'}", STATE / "tiny" / f"gone-{16 * '0'}"
    for folder in (state, stale, foreign, STATE / "other" / f"x-{16 * '0'}"):
        artifacts.write_text(folder / "state.safetensors", "")
    assert paths() == [foreign.as_posix(), stale.as_posix()]
    shutil.rmtree(folders.data_folder(study, "digits"))  # then nobody can tell which one is right
    assert paths() == [foreign.as_posix()]


@pytest.mark.usefixtures("project")
def test_of_a_link_only_the_link_is_removed(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.move(f"results/tiny/pretrain/{RUN}", elsewhere)
    Path(f"results/tiny/pretrain/{RUN}").symlink_to(elsewhere)
    edit(WITHOUT, "")
    leftovers.remove(found())
    assert not Path(f"results/tiny/pretrain/{RUN}").is_symlink()
    assert (elsewhere / "encoder.safetensors").exists()


@pytest.mark.usefixtures("project")
def test_a_folder_that_lies_elsewhere_is_kept_with_the_jobs_in_it(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    folder = Path("results/tiny/probe") / RUN
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)
    (folder / "gone").mkdir()
    assert paths() == [f"{folder}/gone"]


@pytest.mark.usefixtures("project")
def test_a_note_whose_file_is_gone_already_is_found_and_one_with_a_long_name_is_read():
    edit(WITHOUT, "")
    for folder in ("pretrain", "probe", "attack"):
        shutil.rmtree(f"results/tiny/{folder}/{RUN}")
    shutil.rmtree("logs")
    name = base64.urlsafe_b64encode(f"results/tiny/pretrain/{'x' * 300}".encode()).decode()
    long = Path(".snakemake/metadata") / f"@{name[:254]}" / name[254:]
    artifacts.write_text(long, "{}")
    (left,) = found()
    assert left.path == Path(".snakemake/metadata")
    assert len(left.parts) == 9
    leftovers.remove([left])
    assert not long.parent.exists()
    assert notes()


@pytest.mark.usefixtures("project")
def test_dvc_is_told_of_where_it_is_in_use(capsys):
    edit(WITHOUT, "")
    Path("dvc.lock").write_text("")
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("type: dvc repro (no job will run)\n")


@pytest.mark.usefixtures("project")
def test_the_command_to_remove_names_a_study_of_another_file(capsys):
    Path("params.yaml").rename("mine.yaml")
    edit(WITHOUT, "", "mine.yaml")
    assert main(["prune", "--study", "mine.yaml"]) == 0
    assert capsys.readouterr().out.endswith("robustviews prune --yes --study mine.yaml\n")


@pytest.mark.usefixtures("project")
def test_nothing_is_removed_while_a_job_of_the_study_runs(capsys):
    edit(WITHOUT, "")
    folder = Path("results/tiny/pretrain") / RUN  # of which the study has no job any more
    before = everything()
    with locks.acquire(folder, f"pretrain {RUN}"):
        assert main(["prune", "--yes"]) == 2
        said = capsys.readouterr().err
        assert locks.lock_of(folder).is_file()
    assert f"pretrain {RUN} (PID " in said
    assert "nothing was removed" in said
    assert everything() == before


@pytest.mark.usefixtures("project")
def test_locks_and_unfinished_files_of_jobs_are_no_leftovers():
    for name in (f".{RUN}.lock", f".{RUN}.abcd1234/encoder.safetensors"):
        artifacts.write_text(Path("results/tiny/pretrain") / name, "")
    artifacts.write_text(Path("results/tiny/tables/.table1.md.abcd1234"), "")
    assert paths() == []


@pytest.mark.usefixtures("project")
def test_a_study_may_be_named_by_its_whole_path(capsys):
    edit(WITHOUT, "")
    assert main(["prune", "--study", str(Path("params.yaml").absolute())]) == 0
    assert "leftovers" in capsys.readouterr().out
    outside = Path.cwd().parent / "outside.yaml"
    shutil.copy("params.yaml", outside)
    assert main(["prune", "--study", str(outside)]) == 0
