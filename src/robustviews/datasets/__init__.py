"""Data sets: how each is read, verified, split, and stored as plain arrays."""

from robustviews.datasets.digits import Digits
from robustviews.datasets.evaluation import EvaluationFolder
from robustviews.datasets.kinds import DATASETS, Cifar10, Cifar100, Folder
from robustviews.datasets.masks import SegmentationFolder
from robustviews.datasets.photographs import Flowers102, Pets
from robustviews.datasets.protocol import Dataset
from robustviews.datasets.scenes import ScenesSegmentation
from robustviews.datasets.splits import Create, DataError, Rows, equal_images, open_split
from robustviews.datasets.subset import Subset

__all__ = [
    "DATASETS",
    "Cifar10",
    "Cifar100",
    "Create",
    "DataError",
    "Dataset",
    "Digits",
    "EvaluationFolder",
    "Flowers102",
    "Folder",
    "Pets",
    "Rows",
    "ScenesSegmentation",
    "SegmentationFolder",
    "Subset",
    "equal_images",
    "open_split",
]
