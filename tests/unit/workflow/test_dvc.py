"""DVC's lock and cache, read without DVC."""

from __future__ import annotations

import pytest

from robustviews.workflow import dvc

# Both as DVC 3 hashes them.
EMPTY_FOLDER, ABC = "d751713988987e9331980363e24189ce", "900150983cd24fb0d6963f7d28e17f72"


def test_a_lock_names_its_outputs_with_the_hash_of_each():
    lock = b"stages: {a: {cmd: x}, b: {outs: [{path: x/, md5: 1a.dir}, {path: y, md5: 2b}]}}"
    assert dvc.outs(lock) == {"x": "1a.dir", "y": "2b"}
    assert dvc.outs(b"stages: {a: {outs: [{path: x}]}}") == {}


@pytest.mark.parametrize("lock", [b"", b"[]", b"stages: 3", b"stages: {a: 3}", b"a: [", b"\xff\0"])
def test_what_is_no_lock_is_refused_with_what_was_expected(lock):
    with pytest.raises(dvc.LockError, match="expected stages with outs"):
        dvc.outs(lock)


def test_hashes_are_those_of_dvc(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert dvc.md5(b"abc") == dvc.md5_of(tmp_path / "file") == ABC
    assert dvc.md5(b"[]") == EMPTY_FOLDER
    assert dvc.files(b"[]") == {}


def test_bytes_lie_where_the_settings_of_the_project_say(tmp_path):
    assert dvc.path_of(tmp_path, ABC) == tmp_path / ".dvc/cache/files/md5" / ABC[:2] / ABC[2:]
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = ../store\n", encoding="utf-8")
    assert dvc.path_of(tmp_path, ABC) == tmp_path / ".dvc/../store/files/md5" / ABC[:2] / ABC[2:]
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    dir = /far\n", encoding="utf-8")
    assert dvc.path_of(tmp_path, ABC).as_posix() == f"/far/files/md5/{ABC[:2]}/{ABC[2:]}"


@pytest.mark.parametrize(
    ("name", "stages", "unstated"),
    [
        ("params.yaml", "stages: {a: {params: [x, y]}, b: {params: [z, y]}, c: {}}", ["y", "z"]),
        ("other.yaml", "stages: {a: {params: [y]}}", []),  # which DVC does not read
        ("params.yaml", "stages: [a]", []),
    ],
)
def test_parameters_that_dvc_reads_and_a_study_lacks_are_named(name, stages, unstated, tmp_path):
    (tmp_path / name).write_text("x: 1\n", encoding="utf-8")
    assert dvc.unstated(tmp_path / name) == []
    (tmp_path / "dvc.yaml").write_text(stages, encoding="utf-8")
    assert dvc.unstated(tmp_path / name) == unstated
