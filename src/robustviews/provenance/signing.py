"""Signatures: Ed25519 in the format of `ssh-keygen -Y`, so that anyone can check them without us.

The format is OpenSSH's PROTOCOL.sshsig; the key is the user's, from ssh-keygen or openssl.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

NAMESPACE = "robustviews"  # a signature for one purpose is worth nothing for another

_KIND = b"ssh-ed25519"
_MAGIC = b"SSHSIG"
_VERSION = 1
_HASH = "sha512"
_HASHES = ("sha256", "sha512")
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_WIDTH = 70  # of a line, as ssh-keygen writes it
_MAKE = "make one with: ssh-keygen -t ed25519 -f FILE"


class KeyFileError(ValueError):
    """A key file that cannot be used; the message says what it holds and what to type."""


class SignatureError(ValueError):
    """A signature that does not hold; the message says why."""


def load_private(path: Path, passphrase: Callable[[], bytes]) -> Ed25519PrivateKey:
    """Read the key that signs.

    Args:
        path: OpenSSH or PEM file.
        passphrase: asked for one when the key is encrypted.

    Raises:
        KeyFileError: no private Ed25519 key can be had from it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_ssh_private_key,
    )

    data = _read(path)
    if b"PRIVATE KEY-----" not in data:
        found = "a public key" if _is_public(data) else "something else"
        raise KeyFileError(f"{path}: expected a private key, found {found}; {_MAKE}")
    load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    try:
        key: object = load(data, None)
    except TypeError:  # the key is encrypted
        key = _unlock(path, load, data, passphrase())
    except _unusable() as error:
        raise KeyFileError(f"{path}: expected a private key, found no key ({error})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, found {type(key).__name__}; {_MAKE}")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read the key that signatures are checked with.

    Args:
        path: OpenSSH file such as id_ed25519.pub, or PEM.

    Raises:
        KeyFileError: no public Ed25519 key can be had from it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        load_pem_public_key,
        load_ssh_public_key,
    )

    data = _read(path)
    if b"PRIVATE KEY-----" in data:
        raise KeyFileError(
            f"{path}: expected a public key, found a private one, which checks nothing and is not "
            f"to be handed out; get its public half with: ssh-keygen -y -f {path}"
        )
    load = load_pem_public_key if data.startswith(b"-----BEGIN") else load_ssh_public_key
    try:
        key = load(data)
    except _unusable() as error:
        raise KeyFileError(f"{path}: expected a public key, found no key ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, found {type(key).__name__}; {_MAKE}")
    return key


def sign(message: bytes, key: Ed25519PrivateKey) -> str:
    """Return an armoured signature; the same message and key give the same one."""
    signature = _string(_KIND) + _string(key.sign(_signed(message, _HASH)))
    fields = (_blob(key.public_key()), NAMESPACE.encode(), b"", _HASH.encode(), signature)
    data = _MAGIC + _VERSION.to_bytes(4) + b"".join(map(_string, fields))
    lines = textwrap.wrap(base64.b64encode(data).decode(), _WIDTH)
    return "\n".join((_BEGIN, *lines, _END, ""))


def verify(message: bytes, armoured: str, key: Ed25519PublicKey) -> None:
    """Check a signature.

    Args:
        message: that was signed.
        armoured: what `sign` or `ssh-keygen -Y sign -n robustviews` wrote.
        key: of the signer.

    Raises:
        SignatureError: it is damaged, made by another key or for another purpose, or it belongs to
            another message.
    """
    from cryptography.exceptions import InvalidSignature

    signer, namespace, hashed, signature = _parse(armoured)
    if signer != _blob(key):
        raise SignatureError(f"made by another key, {_print_of(signer)}, not by {fingerprint(key)}")
    if namespace != NAMESPACE.encode():
        raise SignatureError(f"made for `{namespace.decode(errors='replace')}`, not `{NAMESPACE}`")
    try:
        key.verify(signature, _signed(message, hashed))
    except InvalidSignature:
        raise SignatureError("it belongs to other bytes than these") from None


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the name of a key as `ssh-keygen -l` writes it."""
    return _print_of(_blob(key))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: expected a key file ({error.strerror}); {_MAKE}") from None


def _unlock(
    path: Path, load: Callable[[bytes, bytes], object], data: bytes, passphrase: bytes
) -> object:
    try:
        return load(data, passphrase)
    except _unusable() as error:
        raise KeyFileError(f"{path}: expected the passphrase of this key ({error})") from None


def _is_public(data: bytes) -> bool:
    return b"PUBLIC KEY-----" in data or data.startswith((b"ssh-", b"ecdsa-", b"sk-"))


def _unusable() -> tuple[type[Exception], ...]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return ValueError, UnsupportedAlgorithm


def _signed(message: bytes, hashed: str) -> bytes:
    """Return the bytes that the key signs, instead of the message itself."""
    digest = hashlib.new(hashed, message).digest()
    return _MAGIC + b"".join(map(_string, (NAMESPACE.encode(), b"", hashed.encode(), digest)))


def _parse(armoured: str) -> tuple[bytes, bytes, str, bytes]:
    """Return signer, namespace, name of the hash, and the signature's 64 bytes."""
    lines = armoured.split()
    text = " ".join(lines)
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        raise SignatureError(f"damaged: expected {_BEGIN}")
    try:
        body = text[len(_BEGIN) : -len(_END)].replace(" ", "")
        data = base64.b64decode(body, validate=True)
        if base64.b64encode(data).decode() != body:  # its last letter has bits that decide nothing
            raise ValueError
        signer, namespace, _, hashed, outer = _strings(data[len(_MAGIC) + 4 :])
        kind, signature = _strings(outer)
    except ValueError:
        raise SignatureError("damaged: its parts do not fit together") from None
    if data[: len(_MAGIC) + 4] != _MAGIC + _VERSION.to_bytes(4) or kind != _KIND:
        raise SignatureError("expected an Ed25519 signature of version 1")
    if hashed.decode(errors="replace") not in _HASHES:
        raise SignatureError(f"expected a hash among {', '.join(_HASHES)}")
    return signer, namespace, hashed.decode(), signature


def _string(data: bytes) -> bytes:
    """Write an SSH string: length in four bytes, then the bytes."""
    return len(data).to_bytes(4) + data


def _strings(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4])
        found.append(data[4 : 4 + size])
        if len(found[-1]) != size:
            raise ValueError("shorter than it says")
        data = data[4 + size :]
    return found


def _blob(key: Ed25519PublicKey) -> bytes:
    return _string(_KIND) + _string(key.public_bytes_raw())


def _print_of(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
