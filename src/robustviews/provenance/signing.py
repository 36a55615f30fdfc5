"""Signatures by OpenSSH: `ssh-keygen -Y`, which anyone can check without this package."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

NAMESPACE = "robustviews"  # OpenSSH refuses a signature that was made for another purpose

_FIX = (
    "create a key with: ssh-keygen -t ed25519 -f FILE; "
    "if nobody can type the passphrase of a key, unlock it first with: ssh-add FILE"
)


class SigningError(ValueError):
    """A key cannot be used, or ssh-keygen is missing; the message says what to type next."""


class SignatureError(ValueError):
    """A signature is not valid; the message says why."""


def fingerprint(key: Path) -> str:
    """Return the fingerprint of a key, such as `SHA256:A5DO...`.

    Args:
        key: public or private OpenSSH key file.

    Raises:
        SigningError: the file is missing or holds no key.
    """
    process = _ssh_keygen("-l", "-f", key)
    if process.returncode:
        raise SigningError(f"{key}: expected an SSH key, found: {_message(process)}; {_FIX}")
    return process.stdout.decode().split()[1]


def sign(message: bytes, key: Path) -> str:
    """Return an armoured signature; an Ed25519 key gives the same signature each time.

    Args:
        message: bytes to sign.
        key: private OpenSSH key file, or the public file of a key that ssh-agent holds. ssh-keygen
            asks for a passphrase on the terminal, or through SSH_ASKPASS.

    Raises:
        SigningError: ssh-keygen cannot sign with the key.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A file, because ssh-keygen asks for no passphrase when the message is its stdin.
        file = Path(folder) / "message"
        file.write_bytes(message)
        process = _ssh_keygen("-Y", "sign", "-f", key, "-n", NAMESPACE, file)
        if process.returncode:
            raise SigningError(
                f"{key}: expected a private key to sign with, found: {_message(process)}; {_FIX}"
            )
        return file.with_name("message.sig").read_text(encoding="utf-8")


def verify(message: bytes, signature: Path, signer: str) -> None:
    """Check a signature.

    Args:
        message: bytes that were signed.
        signature: file that `sign` or `ssh-keygen -Y sign -n robustviews` wrote.
        signer: fingerprint of the key that must have signed.

    Raises:
        SignatureError: the signature is damaged, or belongs to other bytes, to another key or to
            another purpose.
    """
    process = _ssh_keygen(
        "-Y", "check-novalidate", "-n", NAMESPACE, "-s", signature, message=message
    )
    if process.returncode:
        raise SignatureError(_message(process))
    # stdout: Good "robustviews" signature with ... key SHA256:...
    actual = process.stdout.decode().split()[-1]
    if actual != signer:
        raise SignatureError(f"made by another key: expected {signer}, found {actual}")


def _ssh_keygen(
    *arguments: str | Path, message: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *map(str, arguments)], input=message, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise SigningError(
            "ssh-keygen: not found; install OpenSSH, on Debian with: apt-get install openssh-client"
        ) from None


def _message(process: subprocess.CompletedProcess[bytes]) -> str:
    """Return the report of ssh-keygen in one line, without the frame of its warnings."""
    lines = process.stderr.decode(errors="replace").splitlines()
    return "; ".join(line for line in lines if line.strip("@ "))
