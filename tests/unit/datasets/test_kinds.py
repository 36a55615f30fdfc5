"""Data sets: prepared arrays equal the verified sources, and errors name their cause."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from robustviews import datasets
from robustviews.artifacts import new_array
from robustviews.datasets import (
    DATASETS,
    Cifar10,
    Cifar100,
    DataError,
    Digits,
    EvaluationFolder,
    Folder,
    Subset,
    open_split,
    splits,
)
from robustviews.datasets.scenes import ScenesDetection, ScenesSegmentation
from robustviews.tasks.protocol import VOID
from tests.unit.datasets import dense_files, photographs
from tests.unit.datasets.preparing import message

CIFAR = {
    "cifar10": ("CIFAR10", Cifar10, 10, "labels", "data_batch_1", "test_batch"),
    "cifar100": ("CIFAR100", Cifar100, 100, "fine_labels", "train", "test"),
}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(autouse=True)
def no_data_at_hand(monkeypatch, tmp_path_factory):
    """Isolate the tests from the data and the environment of their user."""
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def no_network(monkeypatch):
    from torchvision.datasets import CIFAR10

    def download(self):
        raise AssertionError(f"tried to download to {self.root}")

    monkeypatch.setattr(CIFAR10, "download", download)


def fake_cifar(kind, root, monkeypatch):
    """Write files like the official ones, two images per class; make torchvision expect them."""
    import torchvision.datasets

    name, _, classes, key, train, test = CIFAR[kind]
    official = getattr(torchvision.datasets, name)
    folder = root / official.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written = {}
    for file in (train, test):
        labels = [*range(classes), *range(classes)]
        pixels = rng.integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
        (folder / file).write_bytes(pickle.dumps({"data": pixels, key: labels}, protocol=2))
        written[file] = pixels.reshape(-1, 3, 32, 32), np.array(labels)
    meta = official.meta | {"md5": ""}
    names = {meta["key"]: [str(label) for label in range(classes)]}
    (folder / meta["filename"]).write_bytes(pickle.dumps(names, protocol=2))
    for attribute, files in (("train_list", [train]), ("test_list", [test])):
        sums = [[file, md5(folder / file)] for file in files]
        monkeypatch.setattr(official, attribute, sums)
    monkeypatch.setattr(official, "meta", meta | {"md5": md5(folder / meta["filename"])})
    return {"train": written[train], "test": written[test]}


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def make_folder(root, *, train=3, test=2, colours=COLOURS, size=(40, 30)):
    for split, count in (("train", train), ("val", test)):
        for name, colour in colours.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shade = tuple(max(0, value - number) for value in colour)
                Image.new("RGB", size, shade).save(root / split / name / f"{number}.png")
    return root


MAKERS = {
    "digits": lambda _root, _monkeypatch: Digits(size=16),
    "cifar10": lambda root, monkeypatch: (
        fake_cifar("cifar10", root, monkeypatch) and Cifar10(str(root))
    ),
    "cifar100": lambda root, monkeypatch: (
        fake_cifar("cifar100", root, monkeypatch) and Cifar100(str(root))
    ),
    "folder": lambda root, _monkeypatch: Folder(
        str(make_folder(root)), size=16, classes=tuple(COLOURS)
    ),
    "evaluation_folder": lambda root, _monkeypatch: EvaluationFolder(
        str(make_folder(root) / "val"), len(COLOURS), size=16, resize=18
    ),
    "subset": lambda _root, _monkeypatch: Subset(Digits(size=16), (7, "1", 3)),
    **{kind: functools.partial(photographs.fake, kind) for kind in photographs.WRITERS},
    **{kind: functools.partial(dense_files.fake, kind) for kind in dense_files.WRITERS},
    "scenes_segmentation": lambda _root, _monkeypatch: ScenesSegmentation(train=30, test=20),
    "scenes_detection": lambda _root, _monkeypatch: ScenesDetection(train=30, test=20),
}
FORMS = {  # of labels by task: type, and the values that are no class
    "classification": (np.int64, set()),
    "segmentation": (np.uint8, {VOID}),
    "detection": (np.float32, {-1}),
}


def prepare(dataset, into):
    into.mkdir()
    return dataset.prepare(lambda name, shape, dtype: new_array(into / f"{name}.npy", shape, dtype))


@pytest.fixture
def root(tmp_path):
    """A folder of three classes in two splits."""
    return make_folder(tmp_path / "raw")


# What every data set must do


@pytest.mark.parametrize("kind", DATASETS)
def test_prepared_arrays_match_the_summary(kind, tmp_path, monkeypatch):
    dataset = MAKERS[kind](tmp_path / "raw", monkeypatch)
    summary = prepare(dataset, tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy",
    ]  # fmt: skip
    for split in ("train", "test"):
        images, labels = open_split(tmp_path / "made", split)
        assert images.shape == (summary[split], 3, dataset.size, dataset.size)
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        task = getattr(dataset, "task", "classification")
        dtype, other = FORMS[task]
        assert labels.dtype == dtype
        if summary[split]:
            values = labels[..., 4] if task == "detection" else labels
            assert set(values.ravel()) - other == set(range(summary["classes"]))
    assert len(summary.get("class_names", range(summary["classes"]))) == summary["classes"]
    assert summary["size"] == dataset.size
    assert summary["classes"] == dataset.num_classes
    assert summary["source_hashes"]


@pytest.mark.parametrize("kind", DATASETS)
def test_preparing_twice_gives_the_same_bytes(kind, tmp_path, monkeypatch):
    dataset = MAKERS[kind](tmp_path / "raw", monkeypatch)
    first, second = (prepare(dataset, tmp_path / name) for name in ("one", "two"))
    assert first == second
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_importing_imports_no_slow_library():
    slow = "torch", "torchvision", "sklearn", "PIL"
    code = f"import sys, robustviews.datasets; sys.exit(str(sys.modules.keys() & {slow!r}))"
    path = str(Path(datasets.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "set()"


# Digits


def test_digits_test_split_has_each_class_in_its_proportion_and_leaves_the_rest(tmp_path):
    from sklearn.datasets import load_digits

    summary = prepare(Digits(size=8, test=500), tmp_path / "made")
    (train, train_labels), (test, test_labels) = (
        open_split(tmp_path / "made", split) for split in ("train", "test")
    )
    assert (summary["train"], summary["test"]) == (1297, 500)
    pixels, labels = load_digits(return_X_y=True)
    share = np.bincount(labels) * 500 / 1797
    assert np.abs(np.bincount(test_labels) - share).max() < 1
    actual = sorted(image.tobytes() for image in [*train[:, 0], *test[:, 0]])
    scaled = np.rint(pixels * 255 / 16).astype(np.uint8)
    assert actual == sorted(image.tobytes() for image in scaled)
    assert sorted([*train_labels, *test_labels]) == sorted(labels)


def test_digits_are_enlarged_as_torch_interpolates(tmp_path):
    import torch
    from sklearn.datasets import load_digits

    prepare(Digits(size=20, test=1), tmp_path / "made")
    built, labels = open_split(tmp_path / "made", "test")
    pixels, targets = load_digits(return_X_y=True)
    candidates = torch.tensor(pixels[targets == labels[0]]).view(-1, 1, 8, 8) * 255 / 16
    expected = torch.nn.functional.interpolate(candidates, (20, 20), mode="bilinear")
    error = (expected - torch.tensor(built[0, :1])).abs().amax((1, 2, 3))
    assert error.min() <= 0.5 + 1e-9  # equal to one of them up to rounding
    assert (built[:, :1] == built).all()  # gray


def test_larger_test_split_keeps_the_images_of_a_smaller_one():
    labels = np.arange(400) % 7
    small, large = (set(splits.stratified(labels, count)) for count in (50, 90))
    assert len(small) == 50
    assert small < large


def test_digits_that_are_not_the_known_ones_are_refused(monkeypatch):
    import sklearn.datasets

    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    pixels[5, 20] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda **_: (pixels, labels))
    assert "expected sha256 65e5b46" in message(Digits())


# CIFAR


@pytest.mark.parametrize("kind", CIFAR)
def test_cifar_images_and_labels_are_those_of_the_files(kind, tmp_path, monkeypatch):
    written = fake_cifar(kind, tmp_path / "raw", monkeypatch)
    prepare(CIFAR[kind][1](str(tmp_path / "raw")), tmp_path / "made")
    for split, (pixels, targets) in written.items():
        images, labels = open_split(tmp_path / "made", split)
        np.testing.assert_array_equal(images, pixels)
        np.testing.assert_array_equal(labels, targets)


def test_cifar_subset_is_balanced_and_in_the_order_of_the_files(tmp_path, monkeypatch):
    pixels, _ = fake_cifar("cifar10", tmp_path / "raw", monkeypatch)["train"]
    summary = prepare(
        Cifar10(str(tmp_path / "raw"), train_images=10, test_images=5), tmp_path / "made"
    )
    images, labels = open_split(tmp_path / "made", "train")
    assert (summary["train"], summary["test"]) == (10, 5)
    assert sorted(labels) == list(range(10))
    where = [next(i for i in range(20) if (pixels[i] == image).all()) for image in images]
    assert where == sorted(where)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_damaged_cifar_file_is_named_with_its_checksums(file, tmp_path, monkeypatch):
    fake_cifar("cifar10", tmp_path / "raw", monkeypatch)
    path = tmp_path / "raw" / "cifar-10-batches-py" / file
    expected = md5(path)
    path.write_bytes(path.read_bytes()[:-1])
    text = message(Cifar10(str(tmp_path / "raw")))
    assert f"{path}: expected md5 {expected}, found {md5(path)}" in text
    assert "cifar-10-python.tar.gz" in text


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("named_by", ["root", "environment"])
def test_named_folder_without_cifar_is_an_error_and_no_download(named_by, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTVIEWS_DATA", str(tmp_path / "named"))
    dataset = Cifar10(str(tmp_path / "named") if named_by == "root" else "")
    text = message(dataset)
    assert f"{tmp_path / 'named' / 'cifar-10-batches-py' / 'data_batch_1'}: no such file" in text


@pytest.mark.usefixtures("no_network")
def test_root_comes_before_the_environment(tmp_path, monkeypatch):
    fake_cifar("cifar10", tmp_path / "raw", monkeypatch)
    monkeypatch.setenv("ROBUSTVIEWS_DATA", str(tmp_path / "nothing"))
    prepare(Cifar10(str(tmp_path / "raw")), tmp_path / "made")
    monkeypatch.setenv("ROBUSTVIEWS_DATA", str(tmp_path / "raw"))
    prepare(Cifar10(), tmp_path / "again")


def test_a_failed_download_reports_what_to_unpack_where(monkeypatch):
    from torchvision.datasets import CIFAR10

    def download(self):
        raise URLError(f"no route, to {self.root}")

    monkeypatch.setattr(CIFAR10, "download", download)
    text = message(Cifar10())
    assert "no route, to data/raw" in text
    assert "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz in data/raw" in text


@pytest.mark.slow
def test_official_cifar10_is_accepted(raw, tmp_path):
    summary = prepare(Cifar10(str(raw), train_images=1000, test_images=100), tmp_path / "made")
    assert (summary["train"], summary["test"]) == (1000, 100)
    assert summary["source_hashes"]["test_batch"] == "md5:40351d587109b95175f43aff81a1287e"
    for split in ("train", "test"):
        _, labels = open_split(tmp_path / "made", split)
        assert np.ptp(np.bincount(labels)) == 0


# Folders of image files


def test_folder_labels_follow_the_named_classes(tmp_path, root):
    dataset = Folder(str(root), size=8, classes=("blue", "red"))
    prepare(dataset, tmp_path / "made")
    images, labels = open_split(tmp_path / "made", "test")
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(images[0, :, 4, 4], COLOURS["blue"])
    np.testing.assert_array_equal(images[2, :, 4, 4], COLOURS["red"])


def test_class_list_skips_comments_and_blank_lines(tmp_path, root):
    (tmp_path / "list.txt").write_text("# from somewhere\ngreen\n\n  red  \n")
    dataset = Folder(str(root), size=8, class_list=str(tmp_path / "list.txt"))
    assert prepare(dataset, tmp_path / "made")["classes"] == 2
    images, labels = open_split(tmp_path / "made", "test")
    np.testing.assert_array_equal(images[labels == 0][0, :, 0, 0], COLOURS["green"])


def test_without_named_classes_all_folders_count_in_sorted_order(tmp_path, root):
    dataset = Folder(str(root), size=8)
    assert dataset.num_classes is None
    assert prepare(dataset, tmp_path / "made")["classes"] == 3
    images, labels = open_split(tmp_path / "made", "test")
    np.testing.assert_array_equal(images[labels == 0][0, :, 0, 0], COLOURS["blue"])


@pytest.mark.parametrize("upright", [False, True])
def test_shorter_side_is_resized_and_the_centre_kept(upright, tmp_path):
    wide = Image.new("RGB", (60, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (20, 0, 40, 20))  # the central square
    for split, name in itertools.product(("train", "val"), ("one", "two")):
        (tmp_path / "raw" / split / name).mkdir(parents=True)
        turned = wide.rotate(90, expand=True) if upright else wide
        turned.save(tmp_path / "raw" / split / name / "a.png")
    prepare(Folder(str(tmp_path / "raw"), size=10), tmp_path / "made")
    image = open_split(tmp_path / "made", "train")[0][0]
    np.testing.assert_array_equal(image[:, 1:-1, 1:-1].reshape(3, -1).T, [[0, 0, 255]] * 64)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_images_of_other_modes_become_rgb(mode, tmp_path, root):
    path = root / "val" / "red" / "0.png"
    path.unlink()
    image = Image.new("RGB", (20, 20), (90, 90, 90))
    changed = image.quantize(2) if mode == "P" else image.convert(mode)
    changed.save(path.with_suffix(".tiff"))
    prepare(Folder(str(root), size=8, classes=("red", "blue")), tmp_path / "made")
    images, _ = open_split(tmp_path / "made", "test")
    assert np.abs(images[0].astype(int) - 90).max() <= 1


def test_images_in_nested_folders_count_and_hidden_files_do_not(tmp_path, root):
    nested = root / "val" / "red" / "images"
    nested.mkdir()
    Image.new("RGB", (20, 20)).save(nested / "a.png")
    (root / "val" / "red" / ".DS_Store").write_text("no image")
    dataset = Folder(str(root), size=8, classes=("red", "blue"))
    assert prepare(dataset, tmp_path / "made")["test"] == 5


def test_source_hash_changes_with_one_file(tmp_path, root):
    dataset = Folder(str(root), size=8)
    path = root / "val" / "red" / "0.bmp"
    Image.new("RGB", (40, 30), (1, 2, 3)).save(path)
    before = prepare(dataset, tmp_path / "one")["source_hashes"]
    Image.new("RGB", (40, 30), (1, 2, 4)).save(path)  # as many bytes
    after = prepare(dataset, tmp_path / "two")["source_hashes"]
    assert before["train"] == after["train"]
    assert before["val"] != after["val"]


def test_subset_of_a_folder_takes_from_every_class(tmp_path, root):
    dataset = Folder(str(root), size=8, train_images=3, test_images=6)
    prepare(dataset, tmp_path / "made")
    np.testing.assert_array_equal(open_split(tmp_path / "made", "train")[1], [0, 1, 2])


def test_class_without_a_folder_is_named_with_the_nearest(root):
    text = message(Folder(str(root), classes=("red", "grene")))
    assert f"{root / 'train' / 'grene'}: no such class folder; the nearest is `green`" in text


def test_class_without_images_is_named(tmp_path):
    root = make_folder(tmp_path / "raw", test=0)
    assert f"{root / 'val' / 'blue'}: no image" in message(Folder(str(root)))


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_image_is_named(damage, root):
    path = root / "train" / "green" / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b""}
    path.write_bytes(content[damage])
    assert f"{path}: damaged, or no image" in message(Folder(str(root)))


def test_fewer_images_than_requested_reports_both_numbers(root):
    text = message(Folder(str(root), test_images=7))
    assert f"{root / 'val'}: test_images: expected 7, found 6" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": "training"}, "training: no such folder"),
        ({"test": "testing"}, "testing: no such folder"),
        ({"class_list": "missing.txt"}, "missing.txt: no such class list"),
    ],
)
def test_path_that_does_not_exist_is_named(options, words, root):
    dataset = Folder(str(root), **options)
    assert words in message(dataset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": ("a", "b", "a")}, "`a` twice"),
        ({"classes": ()}, "found none"),
        ({"classes": ("a",)}, "at least 2, found only `a`"),
        ({"classes": ("a", "b"), "class_list": "b.txt"}, "only one of them"),
    ],
)
def test_contradicting_classes_are_refused_before_anything_is_read(options, words):
    with pytest.raises(ValueError, match=words):
        Folder("nowhere", **options)


def test_class_list_that_names_nothing_is_refused(tmp_path, root):
    (tmp_path / "list.txt").write_text("# only a comment\n")
    dataset = Folder(str(root), class_list=str(tmp_path / "list.txt"))
    assert "found none" in message(dataset)


# What tools leave in folders of image files, and what is not all there

LITTER = [".ipynb_checkpoints/0.png", "__MACOSX/._0.png", ".git/HEAD", "@eaDir/0.png/thumb.jpg"]
LITTER += ["Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", ".hidden/deep/0.png"]


@pytest.mark.parametrize("place", ["train", "val", "train/red", "val/blue", "train/red/deep"])
def test_what_tools_leave_is_no_data(place, tmp_path, root):
    dataset = Folder(str(root), size=8)
    before = prepare(dataset, tmp_path / "before")
    for name in LITTER:
        path = root / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path, "PNG")
    assert prepare(dataset, tmp_path / "after") == before
    for split in ("train", "test"):
        for one, other in zip(
            open_split(tmp_path / "before", split), open_split(tmp_path / "after", split),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(one, other)


def test_all_files_that_are_no_images_are_listed_by_name(root):
    strays = [root / "train" / name for name in ("red/README.txt", "blue/list.csv", "red/a.eps")]
    for path in strays:
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    text = message(Folder(str(root)))
    assert f"{root / 'train'}: replace or remove, found 3:" in text
    for path in strays:
        assert f"{path}: damaged, or no image (none of BMP, GIF, JPEG" in text
    assert "object at" not in text


def test_a_long_list_of_files_that_are_no_images_is_cut_and_counted(tmp_path):
    root = make_folder(tmp_path / "raw", train=12)
    for path in (root / "train" / "red").iterdir():
        path.write_text("no image")
    text = message(Folder(str(root)))
    assert "found 12:" in text
    assert text.endswith("  and 2 more")


def test_no_format_is_opened_that_starts_another_program(monkeypatch, root):
    Image.new("RGB", (20, 20)).save(root / "train" / "red" / "0.png", "EPS")
    monkeypatch.setattr("subprocess.check_call", None)
    assert "none of BMP" in message(Folder(str(root)))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_that_pillow_would_clip_to_eight_bits_are_refused(dtype, root):
    path = root / "train" / "red" / "deep.tiff"
    Image.fromarray(np.full((20, 20), 4000, dtype)).save(path)
    text = message(Folder(str(root)))
    assert f"{path}: more than 8 bits per value" in text


@pytest.mark.parametrize("place", ["train/red/a.png", "train/red/deep", "train/lost"])
def test_links_that_lead_nowhere_are_refused_with_their_number_and_the_first(place, tmp_path, root):
    for number in range(12):
        (root / f"{place}{number:02}").symlink_to(tmp_path / "not" / "fetched")
    text = message(Folder(str(root)))
    assert "12 links that lead nowhere; fetch their files" in text
    assert f"{root / place}00, " in text
    assert text.endswith("and 2 more")


def test_links_to_files_and_to_class_folders_are_followed(tmp_path, root):
    (root / "train" / "red").rename(tmp_path / "elsewhere")
    (root / "train" / "red").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "blue" / "link.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    assert prepare(Folder(str(root), size=8), tmp_path / "made")["train"] == 10


def test_links_to_folders_in_a_class_are_refused_since_they_are_not_followed(root):
    (root / "train" / "red" / "more").symlink_to(root / "train")
    assert "1 links to folders, which are not" in message(Folder(str(root)))


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    root, iterdir = make_folder(tmp_path / "raw"), Path.iterdir
    (root / "train" / "red" / "closed").mkdir()

    def refuse(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    text = message(Folder(str(root)))
    assert f"{root / 'train' / 'red' / 'closed'}: cannot be read: Permission denied" in text


def test_one_class_is_refused(tmp_path):
    root = make_folder(tmp_path / "raw", colours={"red": (255, 0, 0)})
    text = message(Folder(str(root)))
    assert (
        f"{root / 'train'}: expected class folders, each once, at least 2, found only `red`" in text
    )


def test_a_class_of_the_test_split_alone_is_refused_unless_the_study_names_the_classes(
    tmp_path, root
):
    (root / "val" / "pink").mkdir()
    text = message(Folder(str(root), size=8))
    assert f"{root / 'val'}: has class folders that {root / 'train'} lacks: pink" in text
    prepare(Folder(str(root), size=8, classes=tuple(COLOURS)), tmp_path / "two")


@pytest.mark.parametrize("place", ["train", "train/red"])
def test_names_that_are_not_utf8_are_refused(place, root):
    os.mkdir(os.fsencode(root / place) + b"/ol\xe9")  # noqa: PTH102  # bytes
    text = message(Folder(str(root)))
    assert r"1 names that are not UTF-8; rename them: b'ol\xe9'" in text


def test_class_names_that_look_the_same_are_refused(root):
    for name in ("ol\u00e9", "ole\u0301"):
        (root / "train" / name).mkdir()
    text = message(Folder(str(root)))
    assert r"2 names that look the same; rename one of them: 'ole\u0301', 'ol\xe9'" in text


def test_a_class_that_looks_like_a_folder_but_is_spelled_otherwise_is_named_with_both(root):
    (root / "train" / "ole\u0301").mkdir()
    text = message(Folder(str(root), classes=("red", "ol\u00e9")))
    assert r"'ole\u0301' looks the same as 'ol\xe9'; rename it" in text


def test_class_list_may_begin_with_a_byte_order_mark(tmp_path, root):
    (tmp_path / "list.txt").write_text("red\nblue\n", encoding="utf-8-sig")
    dataset = Folder(str(root), class_list=str(tmp_path / "list.txt"))
    assert prepare(dataset, tmp_path / "made")["classes"] == 2


def test_class_list_that_is_not_utf8_is_named(tmp_path, root):
    (tmp_path / "list.txt").write_bytes(b"red\nol\xe9\n")
    dataset = Folder(str(root), class_list=str(tmp_path / "list.txt"))
    assert "list.txt: not UTF-8 text (" in message(dataset)


# Prepared data


def test_equal_images_are_counted_within_and_between_the_splits(tmp_path):
    root = make_folder(tmp_path / "raw", train=3, test=2)  # 0 and 1 of each colour are in both
    Image.new("RGB", (40, 30), (7, 7, 7)).save(root / "val" / "red" / "other.png")
    for name in ("again", "once more"):
        Image.new("RGB", (80, 60), COLOURS["red"]).save(root / "train" / "red" / f"{name}.png")
    prepare(Folder(str(root), size=8), tmp_path / "made")
    assert splits.equal_images(tmp_path / "made") == {"train": 2, "test": 0, "shared": 6}


@pytest.fixture
def prepared(tmp_path):
    np.save(tmp_path / "test_images.npy", np.zeros((5, 3, 4, 4), np.uint8))
    np.save(tmp_path / "test_labels.npy", np.arange(5))
    return tmp_path


def test_opened_images_are_mapped_and_read_only(prepared):
    images, labels = open_split(prepared, "test")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(labels, np.arange(5))


@pytest.mark.parametrize("part", ["images", "labels"])
def test_missing_array_names_the_command_that_makes_it(part, prepared):
    path = prepared / f"test_{part}.npy"
    path.unlink()
    with pytest.raises(DataError, match=f"test_{part}.npy: no such file; make it with: snakemake"):
        open_split(prepared, "test")


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("kept", [0, 40, 130])
def test_truncated_array_is_named(part, kept, prepared):
    path = prepared / f"test_{part}.npy"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"test_{part}.npy: expected a whole array"):
        open_split(prepared, "test")


@pytest.mark.parametrize(
    ("part", "array", "words"),
    [
        ("images", np.zeros((5, 3, 4, 4), np.float32), r"found \(5, 3, 4, 4\) float32"),
        ("images", np.zeros((5, 4, 4, 3), np.uint8), r"found \(5, 4, 4, 3\) uint8"),
        ("images", np.zeros((5, 3, 4, 5), np.uint8), r"found \(5, 3, 4, 5\) uint8"),
        ("labels", np.arange(4), r"expected \(5,\) int64, .* found \(4,\) int64"),
        ("labels", np.arange(5, dtype=np.int32), r"found \(5,\) int32"),
        ("labels", np.zeros((5, 4, 5), np.uint8), r"\(5, 4, 4\) uint8 .* found \(5, 4, 5\) uint8"),
        ("labels", np.zeros((5, 4, 4), np.float32), r"\(5, M, 5\) float32, found \(5, 4, 4\)"),
        ("labels", np.zeros((4, 2, 5), np.float32), r"found \(4, 2, 5\) float32"),
        ("labels", np.zeros((5, 2, 5)), r"found \(5, 2, 5\) float64"),
        ("labels", np.array([{}] * 5), "expected a whole array"),
    ],
)
def test_array_of_another_kind_is_refused(part, array, words, prepared):
    np.save(prepared / f"test_{part}.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        open_split(prepared, "test")


def test_images_go_on_in_further_files_as_long_as_there_are_labels(prepared):
    np.save(prepared / "test_labels.npy", np.arange(12))
    with pytest.raises(
        DataError, match=r"test_images-00001.npy: no such file, though .* 12 labels"
    ):
        open_split(prepared, "test")
    np.save(prepared / "test_images-00001.npy", np.ones((5, 3, 4, 4), np.uint8))
    np.save(prepared / "test_images-00002.npy", np.full((3, 3, 4, 4), 2, np.uint8))
    with pytest.raises(
        DataError, match=r"00002.npy: expected \(2, 3, 4, 4\), found \(3, 3, 4, 4\)"
    ):
        open_split(prepared, "test")
    np.save(prepared / "test_images-00002.npy", np.full((2, 3, 4, 4), 2, np.uint8))
    images, _ = open_split(prepared, "test")
    assert (len(images), images.shape, images.nbytes) == (12, (12, 3, 4, 4), 12 * 48)
    assert [image.max() for image in images] == [0] * 5 + [1] * 5 + [2] * 2
    assert images[np.array([11, 4])].max(axis=(1, 2, 3)).tolist() == [2, 0]
    assert images[3:7].max(axis=(1, 2, 3)).tolist() == [0, 0, 1, 1]
    with pytest.raises(IndexError):
        images[12]


def test_pickle_under_the_name_of_an_array_is_not_loaded(prepared):
    (prepared / "test_labels.npy").write_bytes(pickle.dumps(np.arange(5)))
    with pytest.raises(DataError, match=r"test_labels.npy: expected a whole array"):
        open_split(prepared, "test")
