"""A Docker daemon of its own, a base image without any registry, and a user who builds and runs.

Everything lies on a disk of its own, one sparse file, which takes a moment to remove where a
million files would take minutes. What a killed run left is removed by the next one. Debian's
packages are installed where they are missing, and stay.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SCRATCH = Path("/var/tmp/robustviews-test-image")  # a socket's path has at most 107 characters
DISK = SCRATCH.with_suffix(".disk")
REPOSITORY = Path(__file__).parents[2]
BASE = "localhost/debian-base:bookworm"
IMAGE = "robustviews-under-test"
DOCKER = "/usr/bin/docker"  # Debian's: a newer client may lie before it and lack BuildKit
CALLER = 12345, 23456  # user and group that nobody has
ROOM = 25 * 2**30  # bytes: the image, its build and what is downloaded for it, and some
WANTED = "ROBUSTVIEWS_TEST_IMAGE"
_PACKAGES = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "mkfs.ext4": "e2fsprogs",
    "setpriv": "util-linux",
}
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def obstacle() -> str | None:
    """Return why an image cannot be built from nothing here, or None where it can."""
    release = Path("/etc/os-release")
    text = release.read_text(encoding="utf-8") if release.is_file() else ""
    if "ID=debian\n" not in text or 'VERSION_ID="12"\n' not in text:
        return "needs Debian 12, whose Docker it brings up, and this is not"
    if os.geteuid() != 0:
        return "needs root, who may start a Docker daemon"
    if not _may_mount():
        return "needs the capability to mount, which root lacks here, as in most containers"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices, on one of which everything lies"
    free = shutil.disk_usage(SCRATCH.parent).free
    if free < ROOM:
        return f"needs {ROOM >> 30} GiB free in {SCRATCH.parent}, and {free >> 30} are"
    return None


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    held = int(re.search(r"^CapEff:\s*(\w+)$", status, re.M)[1], 16)
    return bool(held >> 21 & 1)  # CAP_SYS_ADMIN


@dataclass(frozen=True)
class Machine:
    """A running daemon with a base image, and the checkout of somebody who is not root."""

    checkout: Path

    def check_out(self, study: Path) -> str:
        """Copy what git would have of this repository and commit it; return the commit.

        Args:
            study: its params.yaml.
        """
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in filter(None, done.stdout.split("\0")):
            source, target = REPOSITORY / name, self.checkout / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        shutil.copy(study, self.checkout / "params.yaml")
        self.give()
        who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")
        self.run("git", *who, "commit", "--quiet", "--message", "Begin")
        return self.run("git", "rev-parse", "HEAD").stdout.strip()

    def give(self) -> None:
        """Let the caller own the checkout."""
        for path in self.checkout.rglob("*"):
            os.chown(path, *CALLER)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as the caller, in the checkout."""
        strange = ("ROBUSTVIEWS", "SNAKEMAKE", "PYTHON", "DOCKER", "MAKE", "GIT")
        env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        done = subprocess.run(
            command,
            cwd=self.checkout,
            env=env | {"HOME": f"{SCRATCH}/home", "DOCKER_HOST": f"unix://{SCRATCH}/docker.sock"},
            user=CALLER[0],
            group=CALLER[1],
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}:\n{done.stdout}{done.stderr}"
        return done

    def docker(self, *arguments: str) -> str:
        """Run Docker's client, which must succeed; return what it said."""
        return self.run(DOCKER, *arguments).stdout

    def make(
        self, *arguments: str, image: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run make in the checkout.

        Args:
            arguments: of make.
            image: more for `docker build`.
            check: whether it must succeed.
        """
        build = f"--network host --build-arg BASE_IMAGE={BASE} {' '.join(_mirrors())} {image}"
        settings = [f"DOCKER={DOCKER}", f"IMAGE={IMAGE}", f"IMAGE_ARGS={build}"]
        return self.run("make", *settings, *arguments, check=check)

    def start(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the image, which can write to nothing and reach nothing."""
        sealed = ["--rm", "--network", "none", "--read-only"]
        return self.run(DOCKER, "run", *sealed, *arguments, check=check)


@contextmanager
def machine() -> Iterator[Machine]:
    """Bring up all of it; take down and remove all of it afterwards, on SIGTERM too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock = SCRATCH.with_suffix(".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{lock} is held: another run of these tests goes on") from error
        try:
            _remove()
            _install()
            _make_disk()
            with _daemon():
                _make_base()
                yield Machine(SCRATCH / "checkout")
        finally:
            _remove()
            lock.unlink()
            signal.signal(signal.SIGTERM, before)


def _make_disk() -> None:
    """Mount a disk, in a file that grows as it fills, and make the caller's folders on it."""
    SCRATCH.mkdir()
    with DISK.open("wb") as file:
        file.truncate(2 * ROOM)
    _call("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(DISK))
    _call("mount", "-o", "loop", str(DISK), str(SCRATCH))
    for name in ("home", "checkout"):
        (SCRATCH / name).mkdir()
        os.chown(SCRATCH / name, *CALLER)


@contextmanager
def _daemon() -> Iterator[None]:
    socket = SCRATCH / "docker.sock"
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    files = ["--data-root", f"{SCRATCH}/root", "--exec-root", f"{SCRATCH}/exec"]
    files += ["-p", f"{SCRATCH}/pid", "-H", f"unix://{socket}"]
    with (SCRATCH / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "dockerd", *network, *files],
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that Ctrl-C leaves it to the end of this block
        )
    try:
        driver = _answer(daemon, "info", "--format", "{{.Driver}}")
        if driver != "overlay2":
            raise RuntimeError(
                f"expected Docker to take overlay2, found that it takes {driver}, which would "
                "copy the image for each of its layers"
            )
        socket.chmod(0o666)
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)


def _answer(daemon: subprocess.Popen[bytes], *arguments: str, seconds: float = 120) -> str:
    deadline = time.monotonic() + seconds
    while daemon.poll() is None and time.monotonic() < deadline:
        done = _docker(*arguments)
        if done.returncode == 0:
            return done.stdout.strip()
        time.sleep(0.2)
    said = (SCRATCH / "daemon.log").read_text(encoding="utf-8").splitlines()
    raise RuntimeError("\n".join(["dockerd does not answer:", *said[-20:]]))


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [DOCKER, "-H", f"unix://{SCRATCH}/docker.sock", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _install() -> None:
    """Install what is missing of Debian's packages."""
    missing = [package for tool, package in _PACKAGES.items() if shutil.which(tool) is None]
    if missing:
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        _call("apt-get", "update", env=quiet)
        _call("apt-get", "install", "-y", "--no-install-recommends", *missing, env=quiet)


def _make_base() -> None:
    """Make a base image from this machine's Debian mirror, with the certificates it trusts."""
    root = SCRATCH / "rootfs"
    minimal = ["--variant=minbase", "--include=ca-certificates"]
    _call("debootstrap", *minimal, "bookworm", str(root), _debian())
    own = list(Path("/usr/local/share/ca-certificates").glob("*.crt"))
    for certificate in own:
        shutil.copy(certificate, root / "usr/local/share/ca-certificates")
    changes = []
    if own:
        _call("chroot", str(root), "update-ca-certificates")
        changes = ["-c", f"ENV SSL_CERT_FILE={_CERTIFICATES} PIP_CERT={_CERTIFICATES}"]
    archive = SCRATCH / "rootfs.tar"
    _call("tar", "-C", str(root), "-c", "-f", str(archive), ".")
    done = _docker("import", *changes, str(archive), BASE)
    assert done.returncode == 0, done.stderr
    archive.unlink()
    shutil.rmtree(root)


def _debian() -> str:
    """Return the Debian mirror that this machine is configured for."""
    fields = ["--format", "$(REPO_URI)", "Codename: bookworm", "Created-By: Packages"]
    done = subprocess.run(
        ["apt-get", "indextargets", *fields], capture_output=True, text=True, check=True
    )
    found = done.stdout.split()
    if not found:
        raise RuntimeError("expected a Debian mirror in the sources of apt; type: apt-get update")
    return found[0]


def _mirrors() -> list[str]:
    """Return how a build here reaches packages: proxies, and mirrors of PyPI as secrets."""
    known = [f"--build-arg {name}" for name in _PROXIES if name in os.environ]
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL", index)
    other = os.environ.get("UV_DEFAULT_INDEX", index)
    texts = {
        "pip": f"[global]\nindex-url = {index}\n" if index else "",
        "uv": f'[[index]]\nurl = "{other}"\ndefault = true\n' if other else "",
    }
    for name, text in texts.items():
        if text:
            path = SCRATCH / f"{name}.secret"
            path.write_text(text, encoding="utf-8")
            path.chmod(0o400)
            os.chown(path, *CALLER)
            known.append(f"--secret id={name},src={path}")
    return known


def _remove() -> None:
    """End what a killed run left, unmount and remove everything; say so where something stays."""
    for process in _processes():
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    for mount in sorted(_mounts(), key=len, reverse=True):
        _call("umount", mount)
    DISK.unlink(missing_ok=True)
    if SCRATCH.exists():
        SCRATCH.rmdir()
    if _processes():
        raise RuntimeError(f"expected no process of {SCRATCH} to stay, found {_processes()}")


def _processes() -> list[int]:
    """Return the daemons of the scratch folder: Docker's, and those that it started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        name = Path(os.fsdecode(command.partition(b"\0")[0])).name
        if name.startswith(("dockerd", "containerd")) and f"{SCRATCH}/".encode() in command:
            found.append(int(folder.name))
    return found


def _mounts() -> list[str]:
    lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    points = [Path(line.split()[1]) for line in lines]
    return [str(point) for point in points if point.is_relative_to(SCRATCH)]


def _call(*command: str, env: os._Environ[str] | dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-2000:]}")
