"""Where the files of data sets are read from, and what is wrong with those that are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ENVIRONMENT = "ROBUSTVIEWS_DATA"  # names a folder of downloaded data
DOWNLOADS = Path("data/raw")  # the only folder to which anything is downloaded


def source_folder(root: str | None) -> tuple[Path | None, bool]:
    """Return where the files of a data set are read from, and whether they may be downloaded to it.

    Args:
        root: option of the data set; None for one that comes with an installed package.
    """
    if root is None:
        return None, False
    given = root or os.environ.get(ENVIRONMENT, "")
    return (Path(given).expanduser(), False) if given else (DOWNLOADS, True)


def cifar_trouble(kind: type[Any], root: Path, error: Exception) -> str:
    """Say which file of a data set of torchvision is missing or damaged, and where to get it.

    Args:
        kind: class of the data set, `torchvision.datasets.CIFAR10` or `CIFAR100`.
        root: folder that it looked in.
        error: what it raised.
    """
    from torchvision.datasets.utils import calculate_md5

    way_out = f"unpack {kind.url} in {root}, or name the folder that has it in {ENVIRONMENT}"
    meta = [kind.meta["filename"], kind.meta["md5"]]
    for name, expected in [*kind.train_list, *kind.test_list, meta]:
        path = root / kind.base_folder / name
        if not path.is_file():
            return f"{path}: no such file ({error}); {way_out}"
        found = calculate_md5(path)
        if found != expected:
            return f"{path}: expected md5 {expected}, found {found}; {way_out}"
    return f"{root}: {error}; {way_out}"
