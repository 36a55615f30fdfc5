"""Verbs that hand a finished study to others: as an RO-Crate, and signed."""

from __future__ import annotations

import argparse
import getpass
import importlib.util
import os
import sys
from pathlib import Path

from robustviews import artifacts
from robustviews.cli.names import UsageError
from robustviews.study import load_study

PASSPHRASE = "ROBUSTVIEWS_KEY_PASSPHRASE"  # environment variable, where nobody can be asked


def crate(options: argparse.Namespace) -> None:
    """Write a finished study as a folder that is an RO-Crate."""
    _need("rocrate")
    from robustviews.provenance import crate as exported

    study = load_study(options.study)
    made = exported.build(study, study_file=_within(Path(options.study)), agent=options.agent)
    exported.write(made, options.to)
    sys.stdout.write(
        f"{options.to}: RO-Crate of {study.study}: {len(made.files)} files, "
        f"{len(made.entities)} things described; start with {options.to}/{exported.METADATA}\n"
    )


def sign(options: argparse.Namespace) -> None:
    """Audit a study, list its files and cells in manifest.json, and sign that."""
    _need("cryptography")
    from robustviews.provenance import manifest, signing
    from robustviews.provenance.audit import audit

    study = load_study(options.study)
    key = signing.load_private(options.key, lambda: _passphrase(options.key))
    path = manifest.path_of(study)
    listed = manifest.build(study, audit(study), study_file=_within(Path(options.study)))
    artifacts.write_json(path, listed)
    signature = path.with_name(f"{path.name}.sig")
    artifacts.write_text(signature, signing.sign(path.read_bytes(), key))
    sys.stdout.write(
        f"{path}: {len(listed['files'])} files and {len(listed['cells'])} cells, audit "
        f"{listed['audit']['state']}\n"
        f"{signature}: signed by {signing.fingerprint(key.public_key())}\n"
        f"Check with: robustviews check-signature --key PUBLIC_KEY\n"
        f"or without this software, the manifest alone: ssh-keygen -Y check-novalidate "
        f"-n {signing.NAMESPACE} -s {signature} < {path}\n"
    )


def check_signature(options: argparse.Namespace) -> int:
    """Check the manifest's signature and that it is this study's, then hash all it names."""
    _need("cryptography")
    from robustviews.provenance import manifest, signing

    study = load_study(options.study)
    path = manifest.path_of(study)
    signature = path.with_name(f"{path.name}.sig")
    key = signing.load_public(options.key)
    for file in (path, signature):
        if not file.is_file():
            raise UsageError(f"{file}: missing; make it with: robustviews sign --key PRIVATE_KEY")
    data = path.read_bytes()
    try:
        signing.verify(data, signature.read_text(encoding="utf-8", errors="replace"), key)
    except signing.SignatureError as error:
        sys.stdout.write(f"{signature}: does not hold for {path}: {error}\n")
        return 1
    listed = manifest.parse(data, path)
    foreign = manifest.foreign(listed, study, _within(Path(options.study)))
    if foreign:
        sys.stdout.write(
            f"{path}: signed by {signing.fingerprint(key)}, but not for {options.study} as it "
            "now stands:\n"
            + "".join(f"  {line}\n" for line in foreign)
            + "sign what is here with: robustviews sign --key PRIVATE_KEY\n"
        )
        return 1
    changed = manifest.changes(listed)
    sys.stdout.write("".join(f"{line}\n" for line in changed))
    files, cells = len(listed["files"]), len(listed["cells"])
    sys.stdout.write(
        f"{path}: signed by {signing.fingerprint(key)}, audit {listed['audit']['state']} then; "
        f"{files - len(changed)} of {files} files are as signed, with {cells} cells\n"
    )
    return 1 if changed else 0


def _need(package: str) -> None:
    """Raise UsageError where a package of the `export` extra is not installed."""
    if importlib.util.find_spec(package) is None:
        raise UsageError(
            f"the package {package} is not installed here; type: make setup, "
            f"or: pip install 'robustviews[export]'"
        )


def _within(study_file: Path) -> Path:
    """Return the study file relative to the project: where that lies is nobody else's business."""
    try:
        return study_file.absolute().relative_to(Path.cwd())
    except ValueError:
        raise UsageError(
            f"{study_file}: expected a study file in the project folder; copy it to studies/"
        ) from None


def _passphrase(path: Path) -> bytes:
    known = os.environ.get(PASSPHRASE)
    if known is not None:
        return known.encode()
    if not sys.stdin.isatty():
        raise UsageError(
            f"{path}: encrypted, and nobody to ask; put its passphrase in {PASSPHRASE}"
        )
    return getpass.getpass(f"Passphrase of {path}: ").encode()
