"""A project folder with sources and workflow of its own, in which a test runs Snakemake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import robustviews

REPOSITORY = Path(__file__).parents[2]
SOURCES = Path(robustviews.__file__).parents[1]
TINY = Path(__file__).with_name("tiny.yaml")
NOTHING = "Nothing to be done"
# What git keeps beside sources and workflow.
VERSIONED = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots/accuracy.json",
    ".dvc/plots/page.html",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "requirements.lock",
)


@dataclass(frozen=True)
class Project:
    """A folder as after `git clone`; its copy of the package is the one that its jobs run."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, study: Path = TINY) -> Project:
        """Make a project that was never run, with a study as its params.yaml, all in git."""
        caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCES / "robustviews", folder / "src" / "robustviews", ignore=caches)
        shutil.copytree(REPOSITORY / "workflow", folder / "workflow")
        for name in VERSIONED:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
        shutil.copy(study, folder / "params.yaml")
        project = cls(folder)
        project.git("init", "--quiet", "--initial-branch=main")
        project.commit("Begin")
        return project

    def copy(self, folder: Path, copy: Callable[[str, str], object] = shutil.copy2) -> Project:
        """Copy everything, Snakemake's own notes included; `shutil.copy` makes all files new."""
        shutil.copytree(self.folder, folder, copy_function=copy)
        return Project(folder)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text, which occurs once, in a file of the project."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} holds {text.count(old)} times: {old}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def snakemake(self, *arguments: str, forbidden: str = "", **config: str) -> Finished:
        """Run Snakemake on the CPU.

        Args:
            arguments: of Snakemake.
            forbidden: a module that cannot be imported, in jobs neither.
            config: more for `--config`.
        """
        values = [f"{name}={value}" for name, value in ({"device": "cpu"} | config).items()]
        paths = []
        if forbidden:
            paths.append(self.folder / "forbidden")
            paths[0].mkdir()
            (paths[0] / f"{forbidden}.py").write_text(f'raise ImportError("{forbidden}!")')
        command = [sys.executable, "-m", "snakemake", *arguments, "--config", *values]
        return self.run(*command, paths=paths)

    def robustviews(self, *arguments: str) -> Finished:
        """Run a verb of the project's own copy of the package."""
        return self.run(sys.executable, "-m", "robustviews", *arguments)

    def dvc(self, *arguments: str) -> Finished:
        """Run DVC."""
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def is_clean(self) -> bool:
        """Return whether DVC finds all results, sources and parameters as dvc.lock names them."""
        return not self.dvc("status", "--json").json()

    def git(self, *arguments: str) -> str:
        """Run git, which must succeed; return what it said."""
        return self.run("git", *arguments).said()

    def clone(self, folder: Path) -> Project:
        """Clone what is committed, and pull the results from the default remote."""
        self.git("clone", "--quiet", str(self.folder), str(folder))
        clone = Project(folder)
        clone.dvc("pull").said()
        return clone

    def changed(self) -> set[str]:
        """Return the paths that differ from the commit, untracked ones included."""
        status = self.git("status", "--porcelain", "--untracked-files=all")
        return {line[3:].strip('"') for line in status.splitlines()}

    def commit(self, message: str) -> str:
        """Commit everything that git does not ignore; return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def run(self, *command: str, paths: Iterable[Path] = ()) -> Finished:
        """Run a command in the project."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(paths),
            capture_output=True,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout + done.stderr, done.stdout)

    def environment(self, paths: Iterable[Path] = ()) -> dict[str, str]:
        """Return variables for processes in the project, with nothing of who runs the tests.

        Args:
            paths: where Python looks before the project's own sources.
        """
        strange = ("SNAKEMAKE", "ROBUSTVIEWS", "PYTHON", "DVC", "GIT")
        env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        person = {"NAME": "Somebody", "EMAIL": "somebody@example.org"}
        return env | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(map(str, [*paths, self.folder / "src"])),
            "OMP_NUM_THREADS": "1",
            "ROBUSTVIEWS_DEVICE": "cpu",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            **{
                f"GIT_{role}_{key}": person[key]
                for role in ("AUTHOR", "COMMITTER")
                for key in person
            },
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder / ".dvc" / "tmp" / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(self.folder / ".dvc" / "tmp" / "system"),
            "DVC_SITE_CACHE_DIR": str(self.folder / ".dvc" / "tmp" / "site"),
        }

    def dry_run(self, **config: str) -> set[str]:
        """Return the jobs that Snakemake would run; see `Finished.jobs`."""
        return self.snakemake("--dry-run", **config).jobs()


@dataclass(frozen=True)
class Finished:
    """What a command returned and wrote; `printed` is its standard output alone."""

    status: int
    text: str
    printed: str = ""

    def said(self) -> str:
        """Return the text of a command that must have succeeded."""
        assert self.status == 0, self.text
        return self.text

    def json(self) -> Any:
        """Return the JSON that a command printed, which must have succeeded."""
        assert self.status == 0, self.text
        return json.loads(self.printed)

    def jobs_of_stages(self) -> set[str]:
        """Return the jobs that all stages of `dvc repro` ran together; see `jobs`."""
        found = re.findall(r"^Job \d+: (.+)$", self.text, re.M)
        assert len(found) == len(set(found)), found
        return {name for name in found if not re.fullmatch(r"all(_\w+)?", name)}

    def jobs(self) -> set[str]:
        """Return the jobs in its text, such as `probe emp-free-digits-s0/rle`, without `all`."""
        assert self.status == 0, self.text
        found = re.findall(r"^Job \d+: (.+)$", self.text, re.M)
        assert self.counts() == Counter(name.split()[0] for name in found), self.text
        assert (NOTHING in self.text) == (not found), self.text
        return set(found) - {"all"}

    def counts(self) -> Counter[str]:
        """Return how many jobs of each rule Snakemake counts, `all` included."""
        table = re.search(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)*?)total +(\d+)$", self.text, re.M)
        if table is None:
            return Counter()
        counts = Counter({line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()})
        assert counts.total() == int(table[2])
        return counts
