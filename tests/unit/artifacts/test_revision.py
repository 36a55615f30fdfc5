"""Git in a stranger's folder: nothing that its configuration names is run."""

from __future__ import annotations

import os
import subprocess

import pytest

from robustviews import artifacts
from robustviews.artifacts import revision
from robustviews.provenance.history import PACKAGE, TRACKED, History

# Each names a program that git runs while it answers a question of the audit.
PROGRAMS = {
    "monitor": "[core]\n\tfsmonitor = {program}\n",
    "hooks": "[core]\n\thooksPath = {folder}\n",
    "filter": '[filter "x"]\n\tclean = {program}\n\tsmudge = {program}\n\trequired = true\n',
    "process": '[filter "x"]\n\tprocess = {program}\n',
    "external diff": "[diff]\n\texternal = {program}\n",
    "text conversion": '[diff "x"]\n\ttextconv = {program}\n\tcommand = {program}\n',
    "signature": "[log]\n\tshowSignature = true\n[gpg]\n\tprogram = {program}\n",
    "pager": "[core]\n\tpager = {program}\n[pager]\n\tshow = {program}\n",
    "included": "[include]\n\tpath = {folder}/included\n",
}


@pytest.fixture
def repository(tmp_path):
    """A repository whose package was edited after the commit, and a program that leaves a trace."""
    root = tmp_path / "project"
    for name in (f"{PACKAGE}/a.py", "dvc.lock", ".snakemake/metadata/x"):
        artifacts.write_text(root / name, "old\n")
    artifacts.write_text(root / ".gitattributes", "* filter=x diff=x\n")
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    person = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "Begin"]):
        subprocess.run(["git", "-C", str(root), *person, *words], check=True, env=env)
    artifacts.write_text(root / PACKAGE / "a.py", "new\n")
    program = tmp_path / "post-index-change"  # also the name of a hook
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/run'\ncat\n")
    program.chmod(0o755)
    monitor = PROGRAMS["monitor"].format(program=program)
    (tmp_path / "included").write_text(monitor + PROGRAMS["filter"].format(program=program))
    return root


@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_program_of_an_audited_repository_is_run(kind, repository):
    program = repository.parent / "post-index-change"
    with (repository / ".git/config").open("a") as file:
        file.write(PROGRAMS[kind].format(program=program, folder=repository.parent))
    history = History(repository)
    head = history.head
    assert history.time(head) is not None
    assert history.changed(head) == [f"{PACKAGE}/a.py"]
    assert history.file(head, repository.relative_to(repository) / "dvc.lock") == b"old\n"
    assert (history.sources(head) / "a.py").read_text() == "old\n"
    assert any(PACKAGE in remark for remark in history.remarks())
    assert not any(path in remark for remark in history.remarks() for path in TRACKED)
    assert not (repository.parent / "run").exists()


@pytest.mark.parametrize("repository_there", [True, False])
def test_a_repository_that_git_cannot_read_is_reported(repository_there, tmp_path, caplog):
    copy = tmp_path / PACKAGE
    copy.mkdir(parents=True)
    (tmp_path / ".git").write_text("gitdir: nowhere\n") if repository_there else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revision, "_PACKAGE", copy)
        assert revision.commit() == (None, None)
    expected = ["records will name no commit of the code; see: robustviews doctor"]
    assert caplog.messages == expected * repository_there
