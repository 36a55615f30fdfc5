"""Data sets: how each is read, verified, split, and stored as plain arrays."""

from robustviews.datasets.kinds import DATASETS, Cifar10, Cifar100, Digits, Folder
from robustviews.datasets.protocol import Dataset
from robustviews.datasets.splits import Create, DataError, Images, Labels, equal_images, open_split
from robustviews.datasets.subset import Subset

__all__ = [
    "DATASETS",
    "Cifar10",
    "Cifar100",
    "Create",
    "DataError",
    "Dataset",
    "Digits",
    "Folder",
    "Images",
    "Labels",
    "Subset",
    "equal_images",
    "open_split",
]
