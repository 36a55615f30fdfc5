"""Where the source files of data sets are, and which of them are missing or damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ENVIRONMENT = "ROBUSTVIEWS_DATA"  # names a folder of downloaded data
DOWNLOADS = Path("data/raw")  # the only folder to which anything is downloaded


def source_folder(root: str | None) -> tuple[Path | None, bool]:
    """Return where the files of a data set are read from, and whether they may be downloaded to it.

    Args:
        root: option of the data set; None if the data come with an installed package.
    """
    if root is None:
        return None, False
    given = root or os.environ.get(ENVIRONMENT, "")
    return (Path(given).expanduser(), False) if given else (DOWNLOADS, True)


def cifar_trouble(kind: type[Any], root: Path, error: Exception) -> str:
    """Describe which file of a CIFAR data set is missing or damaged, and where to get it.

    Args:
        kind: class of the data set, `torchvision.datasets.CIFAR10` or `CIFAR100`.
        root: folder of the files.
        error: error that torchvision raised.
    """
    from torchvision.datasets.utils import calculate_md5

    fix = f"unpack {kind.url} in {root}, or set {ENVIRONMENT} to the folder that has it"
    meta = [kind.meta["filename"], kind.meta["md5"]]
    for name, expected in [*kind.train_list, *kind.test_list, meta]:
        path = root / kind.base_folder / name
        if not path.is_file():
            return f"{path}: no such file ({error}); {fix}"
        md5 = calculate_md5(path)
        if md5 != expected:
            return f"{path}: expected md5 {expected}, found {md5}; {fix}"
    return f"{root}: {error}; {fix}"
