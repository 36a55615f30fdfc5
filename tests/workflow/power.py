"""A file system of its own whose power can be cut: what was not synced is lost, as on a real disk.

It needs root, a loop device and ext4, which ends at once with the ioctl EXT4_IOC_SHUTDOWN, without
its journal being written.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN, _WITHOUT_JOURNAL = 0x8004587D, 2
_MEGABYTES = 600
_PATIENCE = 60  # seconds until nobody uses it any more


class Disk:
    """An ext4 file system in a file, mounted on a folder.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, parent: Path, chance: random.Random) -> None:
        self.folder, self._image, self._chance = parent / "disk", parent / "disk.img", chance
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_MEGABYTES * 10**6)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True)
        self._mount()

    def cut(self) -> None:
        """Cut the power: every later operation fails, and what was not synced is lost."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _WITHOUT_JOURNAL))
        finally:
            os.close(handle)

    def restore(self) -> None:
        """Mount again what reached the disk; nothing may use the folder."""
        self.remove()
        self._mount()

    def remove(self) -> None:
        """Unmount the file system."""
        deadline = time.monotonic() + _PATIENCE
        command = ["umount", str(self.folder)]
        while subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder}: still in use")
            time.sleep(0.1)

    def _mount(self) -> None:
        # With a journal that is seldom written a cut loses names and contents that nobody synced,
        # with one that is written each second names may be there without their contents.
        options = f"loop,commit={self._chance.choice((1, 300))}"
        subprocess.run(["mount", "-o", options, self._image, self.folder], check=True)
