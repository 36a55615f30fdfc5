"""Signatures hold for these bytes and this key alone, and OpenSSH agrees."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from robustviews import artifacts, cli
from robustviews.provenance import manifest, signing
from robustviews.provenance.audit import Audit, CellAudit
from robustviews.provenance.disk import files
from robustviews.provenance.findings import Finding, State
from robustviews.study import jobs
from robustviews.study.cells import Address
from tests.unit.results_tree import small_study, write_tree

MESSAGE = b"every number of the study\n"
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


@pytest.fixture
def key():
    return ed25519.Ed25519PrivateKey.generate()


def never():
    raise AssertionError("asked for a passphrase that the key does not need")


def save(path, key, *, kind="OpenSSH", passphrase=b""):
    formats = {"OpenSSH": PrivateFormat.OpenSSH, "PEM": PrivateFormat.PKCS8}
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, formats[kind], hidden))
    path.chmod(0o600)
    return path


def save_public(path, key, *, kind="OpenSSH"):
    encodings = {
        "OpenSSH": (Encoding.OpenSSH, PublicFormat.OpenSSH),
        "PEM": (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }
    path.write_bytes(key.public_key().public_bytes(*encodings[kind]))
    return path


@pytest.mark.parametrize("kind", ["OpenSSH", "PEM"])
@pytest.mark.parametrize("passphrase", [b"", b"open sesame"], ids=["plain", "encrypted"])
def test_a_key_from_a_file_signs_what_its_public_half_verifies(tmp_path, key, kind, passphrase):
    private = save(tmp_path / "key", key, kind=kind, passphrase=passphrase)
    public = save_public(tmp_path / "key.pub", key, kind=kind)
    loaded = signing.load_private(private, (lambda: passphrase) if passphrase else never)
    signing.verify(MESSAGE, signing.sign(MESSAGE, loaded), signing.load_public(public))


def test_the_same_bytes_and_key_give_the_same_signature(key):
    assert signing.sign(MESSAGE, key) == signing.sign(MESSAGE, key)


@pytest.mark.parametrize("kind", ["OpenSSH", "PEM"])
def test_a_wrong_passphrase_is_told_from_a_wrong_file(tmp_path, key, kind):
    private = save(tmp_path / "key", key, kind=kind, passphrase=b"open sesame")
    with pytest.raises(signing.KeyFileError, match=r"key: expected the passphrase of this key"):
        signing.load_private(private, lambda: b"open barley")


def test_a_signature_does_not_hold_for_other_bytes(key):
    armoured = signing.sign(MESSAGE, key)
    with pytest.raises(signing.SignatureError, match="belongs to other bytes"):
        signing.verify(MESSAGE + b" ", armoured, key.public_key())


def test_a_signature_by_another_key_names_both(key):
    other = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(signing.SignatureError, match="made by another key") as caught:
        signing.verify(MESSAGE, signing.sign(MESSAGE, other), key.public_key())
    for each in (key, other):
        assert signing.fingerprint(each.public_key()) in str(caught.value)


def test_a_signature_for_another_purpose_is_refused(key, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(signing, "NAMESPACE", "file")
        armoured = signing.sign(MESSAGE, key)
    with pytest.raises(signing.SignatureError, match="made for `file`, not `robustviews`"):
        signing.verify(MESSAGE, armoured, key.public_key())


def test_every_damaged_letter_of_a_signature_is_noticed(key):
    armoured = signing.sign(MESSAGE, key)
    body = armoured.removeprefix(signing._BEGIN).removesuffix(signing._END + "\n").strip()
    for place in range(len(body)):
        if body[place] in "\n=":
            continue
        flipped = body[:place] + ("B" if body[place] == "A" else "A") + body[place + 1 :]
        with pytest.raises(signing.SignatureError):
            signing.verify(MESSAGE, armoured.replace(body, flipped), key.public_key())


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN SSH SIGNATURE-----\nAAAA\n"])
def test_what_is_no_signature_is_refused(key, text):
    with pytest.raises(signing.SignatureError, match="damaged"):
        signing.verify(MESSAGE, text, key.public_key())


def test_each_wrong_kind_of_key_is_told_what_it_is(tmp_path, key):
    curve = ec.generate_private_key(ec.SECP256R1())
    cases = {
        "not an Ed25519 key": (save(tmp_path / "curve", curve), "expected an Ed25519 key, found"),
        "public": (save_public(tmp_path / "pub", key), "expected a private key, found a public"),
        "text": (tmp_path / "text", "expected a private key, found something else"),
        "broken": (tmp_path / "broken", "expected a private key, found no key"),
        "missing": (tmp_path / "missing", "expected a key file"),
    }
    (tmp_path / "text").write_text("a diary")
    (tmp_path / "broken").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")
    for path, message in cases.values():
        with pytest.raises(signing.KeyFileError, match=message):
            signing.load_private(path, never)


def test_only_a_public_ed25519_key_checks(tmp_path, key):
    curve = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "text").write_text("a diary")
    for path, message in (
        (save(tmp_path / "key", key), "expected a public key, found a private one"),
        (save_public(tmp_path / "curve.pub", curve), "expected an Ed25519 key, found"),
        (tmp_path / "text", "expected a public key, found no key"),
    ):
        with pytest.raises(signing.KeyFileError, match=message):
            signing.load_public(path)


def openssh(*arguments, stdin=b""):
    done = subprocess.run(
        ["ssh-keygen", *map(str, arguments)], input=stdin, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode() + done.stderr.decode()


@needs_ssh
def test_openssh_verifies_what_we_sign_and_finds_it_changed(tmp_path, key):
    signature, allowed = tmp_path / "message.sig", tmp_path / "allowed"
    signature.write_text(signing.sign(MESSAGE, key))
    allowed.write_bytes(b"me " + save_public(tmp_path / "key.pub", key).read_bytes())
    options = ("-Y", "verify", "-f", allowed, "-I", "me", "-n", "robustviews", "-s", signature)
    status, text = openssh(*options, stdin=MESSAGE)
    assert status == 0, text
    assert f"ED25519 key {signing.fingerprint(key.public_key())}" in text
    assert openssh(*options, stdin=MESSAGE + b" ")[0] != 0


@needs_ssh
def test_we_verify_what_openssh_signs_with_a_key_of_its_own(tmp_path):
    message, private = tmp_path / "message", tmp_path / "key"
    message.write_bytes(MESSAGE)
    assert openssh("-q", "-t", "ed25519", "-N", "", "-f", private)[0] == 0
    status, text = openssh("-Y", "sign", "-n", "robustviews", "-f", private, message)
    assert status == 0, text
    armoured = (tmp_path / "message.sig").read_text()
    signing.verify(MESSAGE, armoured, signing.load_public(tmp_path / "key.pub"))
    assert signing.sign(MESSAGE, signing.load_private(private, never)).split() == armoured.split()


CELL = Address("table1", "free", "digits/clean")


def seen(state=State.VERIFIED):
    finding = Finding("bytes", "results/x", state, "what was seen")
    return Audit("tiny", {}, {CELL: CellAudit(CELL, (), 0.7, (finding,))}, ())


@pytest.fixture
def project(tmp_path):
    """A project in which every file of the study exists."""
    study = small_study()
    write_tree(tmp_path, study)
    for job in jobs.jobs(study).values():
        for path in files(job):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            if not (tmp_path / path).exists():
                (tmp_path / path).write_text(path.as_posix())
    (tmp_path / "params.yaml").write_text("the study")
    return tmp_path


def build(root, audit=None):
    return manifest.build(
        small_study(), audit or seen(), study_file=manifest.Path("params.yaml"), root=root
    )


def test_a_manifest_names_every_file_of_the_study_with_its_hash(project):
    study, listed = small_study(), build(project)
    made = {path.as_posix() for job in jobs.jobs(study).values() for path in files(job)}
    assert set(listed["files"]) == made | {"params.yaml"}
    for name, entry in listed["files"].items():
        assert entry["sha256"] == artifacts.sha256(project / name)
        assert entry["size"] == (project / name).stat().st_size
    assert listed["cells"][str(CELL)] == {"value": 0.7, "state": "verified"}
    assert {"commit": "abc1234", "dirty": False} in listed["code"]


def test_a_manifest_is_refused_to_what_the_audit_fails(project):
    with pytest.raises(manifest.RefusedError, match="results/x: what was seen"):
        build(project, seen(State.FAILED))


def test_what_the_audit_could_not_check_is_signed_as_unknown(project):
    listed = build(project, seen(State.UNKNOWN))
    assert listed["audit"]["state"] == "unknown"
    assert [finding["text"] for finding in listed["audit"]["unknown"]] == ["what was seen"]


def test_a_manifest_cannot_be_made_of_an_unfinished_study(project):
    (project / "results/tiny/report.html").unlink()
    with pytest.raises(
        artifacts.ArtifactError, match=r"report\.html: missing; make it with: snake"
    ):
        build(project)


def test_a_changed_a_missing_and_a_grown_file_are_each_named(project):
    listed = build(project)
    assert manifest.changes(listed, project) == []
    names = sorted(listed["files"])[:3]
    changed, missing, grown = (project / name for name in names)
    changed.write_bytes(bytes(reversed(changed.read_bytes())))
    missing.unlink()
    grown.write_bytes(grown.read_bytes() + b" ")
    told = manifest.changes(listed, project)
    assert [line.split(": ")[:2] for line in told] == [
        [names[0], "changed"],
        [names[1], "missing"],
        [names[2], "changed"],
    ]


@pytest.fixture
def signed(project, key, monkeypatch):
    """The project, its signed manifest, the public key; `params.yaml` is read as its study."""
    monkeypatch.chdir(project)
    monkeypatch.setattr("robustviews.cli.export.load_study", lambda _: small_study())
    monkeypatch.setattr("robustviews.provenance.audit.audit", lambda *_, **_options: seen())
    assert cli.main(["sign", "--key", str(save(project / "key", key))]) == 0
    return save_public(project / "key.pub", key)


def check(public):
    return cli.main(["check-signature", "--key", str(public)])


def test_a_signed_study_is_as_signed(signed, capsys):
    assert check(signed) == 0
    assert "audit verified then" in capsys.readouterr().out


def test_a_changed_file_a_changed_manifest_and_another_key_are_told_apart(signed, capsys):
    listed = manifest.path_of(small_study())
    table = manifest.Path("results/tiny/tables/table1.md")
    before = table.read_bytes()
    table.write_text("100 %")
    assert check(signed) == 1
    assert f"{table}: changed" in capsys.readouterr().out
    table.write_bytes(before)

    whole = listed.read_text()
    listed.write_text(whole.replace("0.7", "0.9"))
    assert check(signed) == 1
    assert "does not hold" in (text := capsys.readouterr().out)
    assert "belongs to other bytes" in text
    listed.write_text(whole)

    other = save_public(manifest.Path("other.pub"), ed25519.Ed25519PrivateKey.generate())
    assert check(other) == 1
    assert "made by another key" in capsys.readouterr().out
    assert check(signed) == 0


def test_the_signed_manifest_of_one_study_does_not_pass_for_another(signed, monkeypatch, capsys):
    other = small_study(study="other")
    shutil.copytree("results/tiny", "results/other")
    monkeypatch.setattr("robustviews.cli.export.load_study", lambda _: other)
    assert check(signed) == 1
    assert "signed for the study 'tiny', expected 'other'" in capsys.readouterr().out


def test_a_file_that_the_study_has_now_and_nobody_signed_is_named(signed, monkeypatch, capsys):
    study = small_study()
    tables = study.tables | {"later": study.tables["table1"]}
    monkeypatch.setattr("robustviews.cli.export.load_study", lambda _: small_study(tables=tables))
    assert check(signed) == 1
    assert "results/tiny/tables/later.csv: not signed" in capsys.readouterr().out


def test_a_study_file_that_nobody_signed_is_named(signed, capsys):
    shutil.copy("params.yaml", "mine.yaml")
    assert cli.main(["check-signature", "--study", "mine.yaml", "--key", str(signed)]) == 1
    assert "mine.yaml: not signed" in capsys.readouterr().out


def test_without_a_signature_the_way_to_one_is_told(signed, capsys):
    manifest.path_of(small_study()).with_name("manifest.json.sig").unlink()
    assert check(signed) == 2
    assert "robustviews sign --key" in capsys.readouterr().err


def test_a_passphrase_comes_from_the_environment_where_nobody_can_be_asked(
    project, key, monkeypatch, capsys, signed
):
    private = save(project / "locked", key, passphrase=b"open sesame")
    command = ["sign", "--key", str(private)]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.delenv("ROBUSTVIEWS_KEY_PASSPHRASE", raising=False)
    assert cli.main(command) == 2
    assert "ROBUSTVIEWS_KEY_PASSPHRASE" in capsys.readouterr().err
    monkeypatch.setenv("ROBUSTVIEWS_KEY_PASSPHRASE", "open sesame")
    assert cli.main(command) == 0
    assert check(signed) == 0


@pytest.mark.usefixtures("signed")
def test_a_study_file_outside_the_project_is_refused(tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "study.yaml"
    assert cli.main(["sign", "--study", str(elsewhere), "--key", "key"]) == 2
    assert "expected a study file in the project folder" in capsys.readouterr().err
