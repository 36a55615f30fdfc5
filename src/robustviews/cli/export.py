"""Verbs that export a finished study: as an RO-Crate, and signed."""

from __future__ import annotations

import argparse
import sys

from robustviews import artifacts
from robustviews.cli.names import UsageError
from robustviews.study import load_study


def crate(options: argparse.Namespace) -> None:
    """Write a finished study as a folder that is an RO-Crate."""
    from robustviews.provenance import crate as exported

    study = load_study(options.study)
    made = exported.build(study, agent=options.agent)
    exported.write(made, options.to)
    sys.stdout.write(
        f"{options.to}: RO-Crate of {study.study}: {len(made.files)} files, "
        f"{len(made.entities)} entities; start with {options.to}/{exported.METADATA}\n"
    )


def sign(options: argparse.Namespace) -> None:
    """Audit a study, list its files and cells in manifest.json, and sign the list."""
    from robustviews.provenance import manifest, signing
    from robustviews.provenance.audit import audit

    study = load_study(options.study)
    signer = signing.fingerprint(options.key)  # before the audit, which takes long
    path = manifest.path_of(study)
    signature = path.with_name(f"{path.name}.sig")
    listed = manifest.build(study, audit(study))
    with artifacts.atomic(path) as temporary:  # without a signature the old manifest remains
        artifacts.write_json(temporary, listed)
        armoured = signing.sign(temporary.read_bytes(), options.key)
    artifacts.write_text(signature, armoured)
    sys.stdout.write(
        f"{path}: {len(listed['files'])} files and {len(listed['cells'])} cells, audit "
        f"{listed['audit']['state']}\n"
        f"{signature}: signed by {signer}\n"
        f"Check with: robustviews check-signature --key PUBLIC_KEY\n"
        f"or without this software, the manifest alone: ssh-keygen -Y check-novalidate "
        f"-n {signing.NAMESPACE} -s {signature} < {path}\n"
    )


def check_signature(options: argparse.Namespace) -> int:
    """Check the manifest's signature and study, then hash all files that the manifest lists."""
    from robustviews.provenance import manifest, signing

    study = load_study(options.study)
    path = manifest.path_of(study)
    signature = path.with_name(f"{path.name}.sig")
    signer = signing.fingerprint(options.key)
    for file in (path, signature):
        if not file.is_file():
            raise UsageError(f"{file}: missing; create it with: robustviews sign --key PRIVATE_KEY")
    data = path.read_bytes()
    try:
        signing.verify(data, signature, signer)
    except signing.SignatureError as error:
        sys.stdout.write(f"{signature}: does not hold for {path}: {error}\n")
        return 1
    listed = manifest.parse(data, path)
    foreign = manifest.foreign(listed, study)
    if foreign:
        sys.stdout.write(
            f"{path}: signed by {signer}, but not for {options.study} as it is now:\n"
            + "".join(f"  {line}\n" for line in foreign)
            + "sign what is here with: robustviews sign --key PRIVATE_KEY\n"
        )
        return 1
    changed = manifest.changes(listed)
    sys.stdout.write("".join(f"{line}\n" for line in changed))
    files, cells = len(listed["files"]), len(listed["cells"])
    sys.stdout.write(
        f"{path}: signed by {signer}, audit {listed['audit']['state']} then; "
        f"{files - len(changed)} of {files} files are as signed, with {cells} cells\n"
    )
    return 1 if changed else 0
