"""Every module of the package can be read at one sitting."""

from __future__ import annotations

from robustviews.study.fingerprint import SOURCE

LONGEST = 350  # lines; a longer module is split, or becomes a package of the same name


def test_no_module_is_long():
    lengths = {
        path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in SOURCE.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
