"""The code of docs/ runs as it stands there."""

from __future__ import annotations

import re

from PIL import Image

from robustviews.study import load_study
from tests.workflow.project import REPOSITORY, Project

STEP = re.compile(r"In `(\S+)`, above `(\w+)`, with the row `(.+?)`:\n\n```python\n(.*?)```", re.S)
FILE = re.compile(
    r"In a new file `(\S+)`, with the row `(\S+ (\w+))` of `(\w+)` in `(\S+)`:\n\n"
    r"```python\n(.*?)```",
    re.S,
)
NAMES = {  # of the demonstration, and of the tiny study that stands for it
    "results/digits-demo/probe/emp-crop4-free3-digits-s0/rle": (
        "results/tiny/probe/emp-free-digits-s0/rle"
    ),
    "results/digits-demo/pretrain/emp-crop4-free3-digits-s0": (
        "results/tiny/pretrain/emp-free-digits-s0"
    ),
}


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text(encoding="utf-8")


def test_what_the_page_on_extending_adds_trains_probes_and_attacks(tmp_path):
    text = page("extending.md")
    steps = STEP.findall(text)
    files = FILE.findall(text)
    tables = [table for _, table, _, _ in steps] + [table for _, _, _, table, _, _ in files]
    assert tables == ["PROBES", "DATASETS", "METHODS", "ATTACKS"]
    _, study = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    project = Project.create(tmp_path / "project", tmp_path / "study.yaml")
    package = project.folder / "src" / "robustviews"
    for file, row, name, table, where, code in files:
        (package / file).write_text(code, encoding="utf-8")
        module = file.removesuffix(".py").replace("/", ".")
        steps.append((where, table, row, f"from robustviews.{module} import {name}"))
    for file, table, row, code in steps:
        source = (package / file).read_text(encoding="utf-8")
        (place,) = re.findall(rf"^{table}: .*\{{", source, re.M)
        added = source.replace(place, f"{code}\n\n{place}{row}, ")
        (package / file).write_text(added, encoding="utf-8")
    project.commit("Extend the package")
    done = project.snakemake("--cores", "2")
    assert done.status == 0, done.text
    shown = (project.folder / "results/extended/tables/all.md").read_text(encoding="utf-8")
    assert "means (nearest class mean)" in shown
    assert "fgsm (FGSM, one step of size eps)" in shown
    cells = project.robustviews("audit", "--json").json()["cells"]
    assert {cell["state"] for cell in cells.values()} == {"verified"}
    assert cells["all:aligned:stripes/clean"]["value"] > 0.5, "of four classes"


def test_the_study_of_own_images_runs_on_a_folder_of_pictures(tmp_path):
    text, _ = re.findall(r"```yaml\n(.*?)```", page("extending.md"), re.S)
    study = tmp_path / "study.yaml"
    study.write_text(text.replace("images: 100", "images: 10"), encoding="utf-8")
    project = Project.create(tmp_path / "project", study)
    for split, blues in (("train", range(60)), ("val", range(60, 70))):
        for name, level in (("dark", 40), ("light", 200)):
            folder = project.folder / "pictures" / split / name
            folder.mkdir(parents=True)
            for blue in blues:
                Image.new("RGB", (40, 32), (level, level, blue)).save(folder / f"{blue}.png")
    project.snakemake("--cores", "2").said()
    table = (project.folder / "results/mine/tables/main.md").read_text(encoding="utf-8")
    assert "pgd20 4/255" in table
    cells = project.robustviews("audit", "--json").json()["cells"]
    assert {cell["state"] for cell in cells.values()} == {"verified"}


def test_the_study_of_the_page_on_transfer_is_valid(tmp_path):
    (study,) = re.findall(r"```yaml\n(.*?)```", page("transfer.md"), re.S)
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    assert load_study(tmp_path / "study.yaml").study == "halves"


def test_the_page_on_python_runs_on_a_finished_study(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(finished.folder)
    text = page("python.md").replace("fooled.png", str(tmp_path / "fooled.png"))
    for name, tiny in NAMES.items():
        assert name in text
        text = text.replace(name, tiny)
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    space: dict[str, object] = {}
    exec(compile(code, "python.md", "exec"), space)
    assert re.search(r"^clean \d+%, robust \d+%$", capsys.readouterr().out, re.M)
    assert (tmp_path / "fooled.png").stat().st_size > 0
    assert not space["classifier"].training
    assert not any(each.requires_grad for each in space["classifier"].parameters())
