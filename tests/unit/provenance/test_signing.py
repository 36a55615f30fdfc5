"""A signature holds for these bytes, this key and this study alone."""

import shutil
import subprocess

import pytest

from robustviews import artifacts, cli
from robustviews.provenance import manifest, signing
from robustviews.provenance.audit import Audit, CellAudit
from robustviews.provenance.findings import Finding, State
from robustviews.study import jobs
from robustviews.study.cells import Address
from tests.unit.results_tree import small_study, write_tree

MESSAGE = b"every number of the study\n"
PASSPHRASE = "open sesame"


def make_key(folder, name, passphrase=""):
    """Create a private key, and its public half beside it."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here: apt-get install openssh-client")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", folder / name]
    subprocess.run(command, check=True)
    return folder / name


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with the keys `ours`, `other` and `locked`."""
    folder = tmp_path_factory.mktemp("keys")
    for name, passphrase in {"ours": "", "other": "", "locked": PASSPHRASE}.items():
        make_key(folder, name, passphrase)
    return folder


def verify(folder, armoured, key, message=MESSAGE):
    (folder / "sig").write_text(armoured)
    signing.verify(message, folder / "sig", signing.fingerprint(key))


def test_the_public_half_of_a_key_verifies_what_its_private_half_signed(keys, tmp_path):
    armoured = signing.sign(MESSAGE, keys / "ours")
    verify(tmp_path, armoured, keys / "ours.pub")
    assert signing.sign(MESSAGE, keys / "ours") == armoured


def test_a_signature_by_another_key_names_both(keys, tmp_path):
    with pytest.raises(signing.SignatureError, match="made by another key") as caught:
        verify(tmp_path, signing.sign(MESSAGE, keys / "other"), keys / "ours.pub")
    for name in ("ours.pub", "other.pub"):
        assert signing.fingerprint(keys / name) in str(caught.value)


def test_a_signature_for_another_purpose_is_refused(keys, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(signing, "NAMESPACE", "file")
        armoured = signing.sign(MESSAGE, keys / "ours")
    with pytest.raises(signing.SignatureError, match="namespace does not match"):
        verify(tmp_path, armoured, keys / "ours.pub")


def test_a_signature_of_other_bytes_and_a_damaged_signature_are_refused(keys, tmp_path):
    armoured = signing.sign(MESSAGE, keys / "ours")
    with pytest.raises(signing.SignatureError, match="incorrect signature"):
        verify(tmp_path, armoured, keys / "ours.pub", MESSAGE + b" ")
    flipped = armoured[:-60] + ("B" if armoured[-60] == "A" else "A") + armoured[-59:]
    for text in ("", "nonsense", armoured[:-40], flipped):
        with pytest.raises(signing.SignatureError):
            verify(tmp_path, text, keys / "ours.pub")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("use", [signing.fingerprint, lambda key: signing.sign(MESSAGE, key)])
def test_a_file_that_is_no_key_is_named_with_the_command_that_creates_one(tmp_path, use):
    (tmp_path / "text").write_text("a diary")
    for name in ("text", "missing"):
        with pytest.raises(signing.SigningError, match=rf"{name}: expected .*: ssh-keygen -t"):
            use(tmp_path / name)


def test_without_ssh_keygen_the_error_names_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(signing.SigningError, match=r"not found; .* apt-get install openssh-client"):
        signing.fingerprint(tmp_path / "key")


CELL = Address("table1", "free", "digits/clean")


def audited(state=State.VERIFIED):
    finding = Finding("bytes", "results/x", state, "what was found")
    return Audit("tiny", {}, {CELL: CellAudit(CELL, (), 0.7, (finding,))}, ())


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in which every file of the study exists, as the working directory."""
    monkeypatch.chdir(tmp_path)
    study = small_study()
    write_tree(tmp_path, study)
    for job in jobs.jobs(study).values():
        for path in job.writes:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            if not (tmp_path / path).exists():
                (tmp_path / path).write_text(path.as_posix())
    (tmp_path / "params.yaml").write_text("the study")
    return tmp_path


def build(audit=None):
    return manifest.build(small_study(), audit or audited())


def test_a_manifest_names_every_file_of_the_study_with_its_hash(project):
    study, listed = small_study(), build()
    made = {path.as_posix() for job in jobs.jobs(study).values() for path in job.writes}
    assert set(listed["files"]) == made | {"params.yaml"}
    for name, entry in listed["files"].items():
        assert entry["sha256"] == artifacts.sha256(project / name)
        assert entry["size"] == (project / name).stat().st_size
    assert listed["cells"][str(CELL)] == {"value": 0.7, "state": "verified"}
    assert {"commit": "abc1234", "dirty": False} in listed["code"]


def test_a_manifest_is_refused_to_what_the_audit_fails():
    with pytest.raises(manifest.RefusedError, match="results/x: what was found"):
        build(audited(State.FAILED))


@pytest.mark.usefixtures("project")
def test_what_the_audit_could_not_check_is_signed_as_unknown():
    listed = build(audited(State.UNKNOWN))
    assert listed["audit"]["state"] == "unknown"
    assert [finding["text"] for finding in listed["audit"]["unknown"]] == ["what was found"]


def test_a_manifest_cannot_be_made_of_an_unfinished_study(project):
    (project / "results/tiny/report.html").unlink()
    with pytest.raises(
        artifacts.ArtifactError, match=r"report\.html: missing; make it with: snake"
    ):
        build()


def test_a_changed_a_missing_and_a_grown_file_are_each_named(project):
    listed = build()
    assert manifest.changes(listed) == []
    names = sorted(listed["files"])[:3]
    changed, missing, grown = (project / name for name in names)
    changed.write_bytes(bytes(reversed(changed.read_bytes())))
    missing.unlink()
    grown.write_bytes(grown.read_bytes() + b" ")
    lines = manifest.changes(listed)
    assert [line.split(": ")[:2] for line in lines] == [
        [names[0], "changed"],
        [names[1], "missing"],
        [names[2], "changed"],
    ]


@pytest.fixture
def signed(project, keys, monkeypatch):
    """The project with a signed manifest; `params.yaml` is read as its study."""

    def read(file):
        return small_study(file=str(project / file))

    monkeypatch.setattr("robustviews.cli.export.load_study", read)
    monkeypatch.setattr("robustviews.provenance.audit.audit", lambda *_, **_options: audited())
    assert sign(keys / "ours") == 0
    return keys / "ours.pub"


def sign(key):
    return cli.main(["sign", "--key", str(key)])


def check(key):
    return cli.main(["check-signature", "--key", str(key)])


def test_a_signed_study_is_as_signed(signed, capsys):
    assert check(signed) == 0
    assert "with audit verified;" in capsys.readouterr().out


def test_a_changed_file_a_changed_manifest_and_another_key_are_reported(signed, keys, capsys):
    path, table = manifest.path_of(small_study()), manifest.Path("results/tiny/tables/table1.md")
    table.write_text("100 %")
    assert check(signed) == 1
    assert f"{table}: changed" in capsys.readouterr().out
    path.write_text(path.read_text().replace("0.7", "0.9"))
    assert check(signed) == 1
    text = capsys.readouterr().out
    assert "is not a valid signature" in text
    assert "changed:" not in text, "the signature is checked before the files"
    assert check(keys / "other.pub") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "other"}, "signed for the study 'tiny', expected 'other'"),
        (
            {"tables": small_study().tables | {"later": small_study().tables["table1"]}},
            "results/tiny/tables/later.csv: not signed",
        ),
    ],
)
def test_a_manifest_of_another_study_is_refused(signed, monkeypatch, capsys, changes, message):
    shutil.copytree("results/tiny", "results/other")
    monkeypatch.setattr("robustviews.cli.export.load_study", lambda _: small_study(**changes))
    assert check(signed) == 1
    assert message in capsys.readouterr().out


def test_a_study_file_that_nobody_signed_is_named(signed, capsys):
    shutil.copy("params.yaml", "mine.yaml")
    assert cli.main(["check-signature", "--study", "mine.yaml", "--key", str(signed)]) == 1
    assert "mine.yaml: not signed" in capsys.readouterr().out


def test_without_a_signature_the_error_says_how_to_create_one(signed, capsys):
    manifest.path_of(small_study()).with_name("manifest.json.sig").unlink()
    assert check(signed) == 2
    assert "robustviews sign --key" in capsys.readouterr().err


def test_a_key_that_cannot_be_unlocked_leaves_the_signed_manifest_as_it_was(
    signed, keys, monkeypatch, capsys
):
    monkeypatch.setattr(
        "robustviews.provenance.audit.audit", lambda *_, **_options: audited(State.UNKNOWN)
    )
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("SSH_ASKPASS", "false")
    assert sign(keys / "locked") == 2
    assert "ssh-add FILE" in capsys.readouterr().err
    assert check(signed) == 0


@pytest.mark.usefixtures("signed")
def test_a_study_file_outside_the_project_is_refused(keys, tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "study.yaml"
    assert cli.main(["sign", "--study", str(elsewhere), "--key", str(keys / "ours")]) == 2
    assert "expected a study file in the project folder" in capsys.readouterr().err
