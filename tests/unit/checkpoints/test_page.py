"""docs/import.md runs as it stands there, and its table is the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from robustviews.checkpoints import CATALOGUE
from robustviews.cli import main
from tests.unit.checkpoints import synthetic
from tests.unit.checkpoints.synthetic import CASES, IMAGES

PAGE = (Path(__file__).parents[3] / "docs/import.md").read_text(encoding="utf-8")


def test_the_commands_and_the_code_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    states = [synthetic.source(seed).state_dict() for seed in (1, 2)]
    torch.save(CASES["moco-v3"].tree(*states), "r-50-300ep.pth.tar")
    (command,) = re.findall(r"^\$ robustviews (.*)$", PAGE, re.M)
    assert main(command.split()) == 0
    shown = re.search(r"```console\n\$.*?\n(.*?)```", PAGE, re.S)[1]
    titles = [line.split()[0] for line in shown.splitlines() if line]
    assert titles == [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    space = {"images": IMAGES}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(code, "import.md", "exec"), space)
    expected = space["encoder"].represent(IMAGES, "backbone")
    assert torch.equal(space["h"], expected)


def test_the_table_of_the_page_is_the_catalogue():
    rows = re.findall(
        r"^\| `(.*?)` \| \[(.*?)\]\((.*?)\) \| (.*?) \| (.*?) \| (.*?) ?\|$", PAGE, re.M
    )
    assert rows == [
        (
            name,
            entry.file,
            entry.page,
            entry.licence or "none stated",
            entry.normalise or "inside",
            "" if entry.top1 is None else f"{entry.top1:g}",
        )
        for name, entry in CATALOGUE.items()
    ]
