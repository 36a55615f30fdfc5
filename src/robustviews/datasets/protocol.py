"""What a data set must offer, and how it is scored."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

from robustviews.datasets.splits import Create
from robustviews.options import plan_only

Accuracy = Literal["top1", "mean_per_class"]


class Dataset(Protocol):
    """What a data set must offer; a row in `DATASETS` makes it a name for study files.

    Its labels are of the form that `splits.open_split` describes. A class for segmentation or
    detection has `task: ClassVar[str]`, "segmentation" or "detection"; another is for
    classification.
    """

    @property
    def size(self) -> int:
        """Height and width of a prepared image, in pixels."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if only the files show it."""

    @property
    def accuracy(self) -> Accuracy:
        """`top1` is the share of right images, `mean_per_class` its mean over the classes.

        It decides tables and figures, and no result of a job.
        """

    @property
    def counts(self) -> tuple[int, int] | None:
        """Numbers of training and test images; None if only the files show them."""

    @property
    def root(self) -> str | None:
        """Folder of the source files; empty for the default folder, None if no files are needed."""

    @property
    def files(self) -> tuple[str, ...]:
        """Folders that must exist in the source folder."""

    def prepare(self, create: Create) -> dict[str, Any]:
        """Fill {train,test}_images and {train,test}_labels; after a DataError they are invalid.

        Returns:
            `train` and `test` (numbers of images), `classes`, `size`, and `source_hashes` by name;
            `class_names` if the files have them; for detection `dropped_boxes`, numbers by reason.
        """


class Kept:
    """What data sets share that have the options `train_images` and `test_images`.

    Attributes:
        totals: numbers of training and test images; None if only the files show them.
    """

    train_images: int | None
    test_images: int | None
    totals: ClassVar[tuple[int, int] | None] = None

    @property
    @plan_only
    def counts(self) -> tuple[int, int] | None:
        """Return the numbers of images that are kept, if they are known without the files."""
        train, test = self.totals or (None, None)
        train, test = self.train_images or train, self.test_images or test
        return None if train is None or test is None else (train, test)

    @property
    def requested(self) -> dict[str, int | None]:
        """Return the number of images to keep of each split; None for all."""
        return {"train": self.train_images, "test": self.test_images}
