"""Data sets: how each is read, verified, split, and stored as plain arrays."""

from robustviews.datasets.boxes import CocoDetection, VocDetection
from robustviews.datasets.digits import Digits
from robustviews.datasets.evaluation import EvaluationFolder
from robustviews.datasets.kinds import DATASETS, Cifar10, Cifar100, Folder
from robustviews.datasets.masks import Camvid, SegmentationFolder, VocSegmentation
from robustviews.datasets.photographs import Aircraft, Flowers102, Food101, Pets, Textures
from robustviews.datasets.protocol import Dataset
from robustviews.datasets.scenes import ScenesDetection, ScenesSegmentation
from robustviews.datasets.splits import (
    Create,
    DataError,
    Images,
    Labels,
    Rows,
    equal_images,
    open_split,
)
from robustviews.datasets.subset import Subset

__all__ = [
    "DATASETS",
    "Aircraft",
    "Camvid",
    "Cifar10",
    "Cifar100",
    "CocoDetection",
    "Create",
    "DataError",
    "Dataset",
    "Digits",
    "EvaluationFolder",
    "Flowers102",
    "Folder",
    "Food101",
    "Images",
    "Labels",
    "Pets",
    "Rows",
    "ScenesDetection",
    "ScenesSegmentation",
    "SegmentationFolder",
    "Subset",
    "Textures",
    "VocDetection",
    "VocSegmentation",
    "equal_images",
    "open_split",
]
