"""No output of a study holds a secret, or says on whose machine it was made.

Everything that could leak is planted: tokens in the environment, credentials in the URLs of git's
and DVC's remotes, a passphrase, the names of user, host and folders. Then a whole small study runs,
is audited, signed and exported, and every file that it left is searched.
"""

import os
import shutil
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import TINY, Project

PASSPHRASE = "planted-passphrase-7Qd"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED7QD",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret=7Qd",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountKey=planted-azure-7Qd",
    "DVC_STUDIO_TOKEN": "isat_planted-studio-7Qd",
    "GH_TOKEN": "gho_planted7Qd",
    "GITHUB_TOKEN": "ghp_planted7Qd",
    "GOOGLE_APPLICATION_CREDENTIALS": "/planted-folder-7Qd/google.json",
    "HF_TOKEN": "hf_planted7Qd",
    "PIP_INDEX_URL": "https://me:planted-pip-7Qd@index.example.org/simple",
    "ROBUSTVIEWS_IMAGE": "registry.example.org/lab/robustviews:1@sha256:" + 64 * "0",
    "KEY_PASSPHRASE": PASSPHRASE,
    "WANDB_API_KEY": "planted-wandb-7Qd",
}
REGISTRY = "planted-registry-7Qd"  # before the image's name
NAMES = {
    "HOSTNAME": "planted-host-7Qd",
    "LOGNAME": "planted-user-7Qd",
    "USER": "planted-user-7Qd",
    "USERNAME": "planted-user-7Qd",
}
GIT = "planted-git-7Qd"
DVC = {"url": "planted-dvc-7Qd", "password": "planted-local-7Qd"}
COMMITTER = ("Somebody", "somebody@example.org")
# None of the verbs below needs torch.
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from robustviews.cli import main; "
    "sys.exit(main(sys.argv[1:]))"
)
CELL = "accuracies:simclr:digits/pgd2/8"


class Planted(Project):
    """A project whose processes see every planted secret."""

    def environment(self, paths=()):
        image = ENVIRONMENT["ROBUSTVIEWS_IMAGE"]
        own = {
            "ROBUSTVIEWS_IMAGE": f"docker://me:{REGISTRY}@{image}",
            "SSH_ASKPASS": str(self.folder.parent / "ask"),
            "SSH_ASKPASS_REQUIRE": "force",
        }
        return super().environment(paths) | ENVIRONMENT | NAMES | own


def small_study(path):
    """Write the tiny study with one of its runs."""
    study = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    study["claims"] = {}  # it compares two runs
    for block in (*study["tables"].values(), *study["figures"].values()):
        block["rows"] = {"simclr": {"run": "simclr-std", "probe": "central"}}
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def plant(project):
    """Put credentials where git and DVC keep the URLs of their remotes."""
    project.git("remote", "add", "origin", f"https://me:{GIT}@git.example.org/lab/project.git")
    project.dvc("remote", "add", "--default", "far", f"https://me:{DVC['url']}@example.org/store")
    project.dvc("remote", "modify", "--local", "far", "password", DVC["password"])


def make_key(folder):
    """Create an encrypted key, and the program that OpenSSH asks for its passphrase."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here: apt-get install openssh-client")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", folder / "key"]
    subprocess.run([*command, "-C", "planted-user-7Qd@planted-host-7Qd"], check=True)
    ask = folder / "ask"
    ask.write_text('#!/bin/sh\necho "$KEY_PASSPHRASE"\n')
    ask.chmod(0o700)


@pytest.fixture(scope="module")
def made(once):
    """A finished project, and beside it the crate and what each verb said."""
    return once("secrets", make)


def make(root):
    root.mkdir()
    project = Planted.create(root / "project", small_study(root / "study.yaml"))
    plant(project)
    make_key(root)
    first = project.snakemake()
    assert first.status == 0, first.text
    project.dvc("commit", "--force")
    (root / "said").mkdir()
    for number, command in enumerate(
        (
            ("verify",),
            ("audit",),
            ("audit", "--json"),
            ("audit", "--cell", CELL),
            ("explain", CELL),
            ("summary",),
            ("sign", "--key", str(root / "key")),
            ("check-signature", "--key", str(root / "key.pub")),
            ("crate", "--to", str(root / "crate")),
        )
    ):
        done = project.run(sys.executable, "-c", WITHOUT_TORCH, *command)
        assert done.status == 0, f"{command}: {done.text}"
        (root / "said" / f"{number}-{command[0]}").write_text(done.text, encoding="utf-8")


def outputs(root):
    """Yield every file that the study left: of the project all but what holds the secrets."""
    project = root / "project"
    for folder in (root / "said", root / "crate", *(project / name for name in LEFT)):
        assert folder.exists(), folder
        yield from (path for path in [folder, *folder.rglob("*")] if path.is_file())


LEFT = ("data", "dvc.lock", "logs", "results", ".snakemake")
# Told to whoever types the command: its own arguments, and where the report lies.
LOCAL = (".snakemake/log", "said")


def found(root, secrets, *, without=()):
    """Return each file that holds one of some texts, as it is or as URLs and base64 write it."""
    needles = {
        form.encode()
        for secret in secrets
        for form in (secret, urllib.parse.quote(secret, safe=""), secret.replace("/", "\\/"))
    }
    return [
        f"{path.relative_to(root)}: {needle.decode()}"
        for path in outputs(root)
        if not any(part in path.as_posix() for part in without)
        for data in [path.read_bytes()]
        for needle in needles
        if needle in data
    ]


def test_the_project_holds_what_must_not_leave_it(made):
    config = (made / "project/.git/config").read_text()
    assert GIT in config
    assert DVC["url"] in (made / "project/.dvc/config").read_text()
    assert DVC["password"] in (made / "project/.dvc/config.local").read_text()


def test_all_outputs_that_could_leak_are_searched(made):
    names = {path.relative_to(made).as_posix() for path in outputs(made)}
    for wanted in (
        "project/results/tiny/report.html",
        "project/results/tiny/manifest.json",
        "project/results/tiny/manifest.json.sig",
        "project/results/tiny/tables/accuracies.md",
        "project/results/tiny/pretrain/simclr-std-digits-s0/record.json",
        "project/logs/tiny/pretrain/simclr-std-digits-s0.log",
        "crate/ro-crate-metadata.json",
        "project/dvc.lock",
    ):
        assert wanted in names
    assert any(name.startswith("project/.snakemake/metadata/") for name in names)


@pytest.mark.parametrize("name", [name for name in ENVIRONMENT if name != "ROBUSTVIEWS_IMAGE"])
def test_no_output_holds_a_token_of_the_environment(made, name):
    assert found(made, [ENVIRONMENT[name]]) == []


def test_no_output_holds_a_credential_of_a_remote_or_a_registry(made):
    assert found(made, [GIT, *DVC.values(), REGISTRY]) == []


def test_an_image_is_recorded_without_its_credential(made):
    record = made / "project/results/tiny/pretrain/simclr-std-digits-s0/record.json"
    assert f'"docker://{ENVIRONMENT["ROBUSTVIEWS_IMAGE"]}"' in record.read_text()


def test_no_output_says_whose_machine_it_was(made):
    people = {*NAMES.values(), *COMMITTER}
    hosts = {socket.gethostname(), socket.getfqdn()} - {"localhost"}
    # A name of a few letters stands in many a text by chance.
    real = {host for host in hosts if len(host) > 5}
    assert found(made, people) == []
    assert found(made, real, without=[".snakemake/log"]) == []


def test_no_output_says_where_on_the_machine_it_lay(made):
    folders = {f"{Path.home()}{os.sep}", str(made), str(made.resolve())}
    assert found(made, folders, without=LOCAL) == []


def test_the_same_finished_study_is_exported_as_the_same_bytes(made, tmp_path):
    project = Planted(made / "project")
    assert project.robustviews("crate", "--to", str(tmp_path / "other")).status == 0
    compare(made / "crate", tmp_path / "other")


def compare(one, other):
    done = subprocess.run(["diff", "-r", one, other], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
