"""Verbs that export a finished study: as an RO-Crate, and signed."""

from __future__ import annotations

import argparse
import sys

from robustviews import artifacts
from robustviews.cli.names import UsageError
from robustviews.study import load_study


def crate(options: argparse.Namespace) -> None:
    """Write a finished study as an RO-Crate folder."""
    from robustviews.provenance import crate as ro_crate

    study = load_study(options.study)
    built = ro_crate.build(study, agent=options.agent)
    ro_crate.write(built, options.to)
    sys.stdout.write(
        f"{options.to}: RO-Crate of {study.study}: {len(built.files)} files, "
        f"{len(built.entities)} entities; start with {options.to}/{ro_crate.METADATA}\n"
    )


def sign(options: argparse.Namespace) -> None:
    """Audit a study, list its files and cells in manifest.json, and sign the list."""
    from robustviews.provenance import manifest, signing
    from robustviews.provenance.audit import audit

    study = load_study(options.study)
    signer = signing.fingerprint(options.key)  # before the slow audit
    path = manifest.path_of(study)
    signature = path.with_name(f"{path.name}.sig")
    content = manifest.build(study, audit(study))
    with artifacts.atomic(path) as temporary:  # if signing fails, the old manifest remains
        artifacts.write_json(temporary, content)
        signed = signing.sign(temporary.read_bytes(), options.key)
    artifacts.write_text(signature, signed)
    sys.stdout.write(
        f"{path}: {len(content['files'])} files and {len(content['cells'])} cells, audit "
        f"{content['audit']['state']}\n"
        f"{signature}: signed by {signer}\n"
        f"Check it with: robustviews check-signature --key PUBLIC_KEY\n"
        f"or only the manifest, without this software: ssh-keygen -Y check-novalidate "
        f"-n {signing.NAMESPACE} -s {signature} < {path}\n"
    )


def check_signature(options: argparse.Namespace) -> int:
    """Check the manifest's signature and study, then hash all files that it lists."""
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
        sys.stdout.write(f"{signature} is not a valid signature of {path}: {error}\n")
        return 1
    content = manifest.parse(data, path)
    differences = manifest.foreign(content, study)
    if differences:
        sys.stdout.write(
            f"{path}: signed by {signer}, but not for {options.study} as it is now:\n"
            + "".join(f"  {line}\n" for line in differences)
            + "sign the present results with: robustviews sign --key PRIVATE_KEY\n"
        )
        return 1
    changed = manifest.changes(content)
    sys.stdout.write("".join(f"{line}\n" for line in changed))
    files, cells = len(content["files"]), len(content["cells"])
    sys.stdout.write(
        f"{path}: signed by {signer} with audit {content['audit']['state']}; "
        f"{files - len(changed)} of {files} files are as signed, with {cells} cells\n"
    )
    return 1 if changed else 0
