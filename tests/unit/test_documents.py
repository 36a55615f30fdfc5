"""Documents that repeat what the package knows: generated pages, messages, versions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import robustviews
from robustviews.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("study-file.md", ["keys"]),
        ("switches.md", ["switches", "--markdown", "--study", "studies/cf-amc-ssl.yaml"]),
    ],
)
def test_a_generated_page_is_current(page, command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert not main(command)
    written = (DOCS / page).read_text(encoding="utf-8")
    assert capsys.readouterr().out == written, "type: make docs"


def sources():
    """Return the text of all sources, in which a string over several lines is one."""
    parts = ["Makefile", "workflow/stage", "workflow/killed", *(ROOT / "src").rglob("*.py")]
    text = "\n".join((ROOT / part).read_text(encoding="utf-8") for part in parts)
    return re.sub(r'"\s*f?"', "", text)


def test_troubleshooting_explains_messages_that_exist():
    known = sources()
    rows = re.findall(r"^\| (`.*?`) \|", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
    assert len(rows) > 40
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            assert message.strip() in known, message


def test_every_page_is_in_the_menu_of_the_manual():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert re.search(rf"[ -]{page.name}$", menu, re.M), page.name


def test_paths_in_documents_exist():
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")):
        text = document.read_text(encoding="utf-8")
        for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
            made = path.startswith(("results/", "data/", "studies/mine", ".snakemake/"))
            assert made or (ROOT / path).exists(), f"{document.name}: {path}"


def test_version_citation_and_changelog_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version, date = re.findall(r"^## (\d+\.\d+\.\d+) - (\S+)$", CHANGELOG, re.M)[0]
    assert robustviews.__version__ == citation["version"] == version
    assert str(citation["date-released"]) == date
    assert "### Numbers" in CHANGELOG


def test_what_github_and_pre_commit_run_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.M))
    commands = []
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        lines = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
        assert lines, path.name
        commands += [
            part.split() for line in lines for part in re.split(r"(?: 2>&1)? \| |&&|\n", line)
        ]
    for name, *arguments in filter(None, commands):
        assert name in ("make", "git", "grep", "tee", "test"), name
        for argument in arguments if name == "make" else []:
            variable, assigned, _ = argument.partition("=")
            assert variable in (variables if assigned else targets), argument
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}, "others are cloned from hosts"
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    assert set(re.findall(r"\.venv/bin/(\S+)", " ".join(entries))) <= locked
