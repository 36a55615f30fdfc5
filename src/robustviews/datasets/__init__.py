"""Data sets: how each is read, verified, split, and stored as plain arrays."""

from robustviews.datasets.evaluation import EvaluationFolder
from robustviews.datasets.kinds import DATASETS, Cifar10, Cifar100, Dataset, Digits, Folder
from robustviews.datasets.splits import Create, DataError, Images, Labels, equal_images, open_split

__all__ = [
    "DATASETS",
    "Cifar10",
    "Cifar100",
    "Create",
    "DataError",
    "Dataset",
    "Digits",
    "EvaluationFolder",
    "Folder",
    "Images",
    "Labels",
    "equal_images",
    "open_split",
]
