"""Published checkpoints: where they are, under which licence, and what their tensors do not tell.

An address stands here only where it is sure; otherwise `page` names where its authors give it. Only
torchvision publishes hashes: the first 8 digits of each SHA-256 are part of the name of the file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        file: its name.
        page: page of its authors.
        layout: program that wrote it, as in `checkpoints.layouts.LAYOUTS`.
        licence: of the weights; empty if the authors state none.
        normalise: normalisation outside of the network, by name; None if it normalises inside.
        top1: published top-1 accuracy on ImageNet in percent, of the file's own classifier or of a
            linear classifier; None if the authors state none.
        address: of the file; empty if it is to be found on the page.
        sha256: first digits of its hash; empty if none is published.
        weights: which of several networks the accuracy belongs to.
        classifier: whether a layer `fc` in the file is a trained classifier.
    """

    file: str
    page: str
    layout: str
    licence: str
    normalise: str | None
    top1: float | None = None
    address: str = ""
    sha256: str = ""
    weights: str | None = None
    classifier: bool = True


def _torchvision(file: str, top1: float) -> Published:
    return Published(
        file,
        page="https://github.com/pytorch/vision",
        layout="plain state dict",
        licence="BSD-3-Clause (code)",
        normalise="imagenet",
        top1=top1,
        address=f"https://download.pytorch.org/models/{file}",
        sha256=file.split("-")[1].split(".", maxsplit=1)[0],
    )


def _plain(file: str, repository: str, licence: str, top1: float | None = None) -> Published:
    page = f"https://github.com/{repository}"
    return Published(file, page, "plain state dict", licence, "imagenet", top1)


def _swav(name: str, top1: float) -> Published:
    page = "https://github.com/facebookresearch/swav"
    layout = "SwAV or DeepCluster v2"
    return Published(f"{name}_pretrain.pth.tar", page, layout, _NC, "swav", top1)


def _moco_v3(name: str, top1: float | None = None) -> Published:
    page, file = "https://github.com/facebookresearch/moco-v3", f"{name}.pth.tar"
    return Published(file, page, "MoCo v3", _NC, "imagenet", top1, weights="base")


def _simsiam(folder: str, top1: float) -> Published:
    page = "https://github.com/facebookresearch/simsiam"
    file = f"{folder}/pretrain/checkpoint_0099.pth.tar"
    return Published(file, page, "SimSiam", _NC, "imagenet", top1)


def _vissl(epochs: int, top1: float) -> Published:
    page = "https://github.com/facebookresearch/vissl"
    file = f"model_final_checkpoint_phase{epochs - 1}.torch"
    return Published(file, page, "VISSL", "MIT", "imagenet", top1)


def _lightly(method: str, top1: float, weights: str | None = None) -> Published:
    steps = 1000900 if method == "dino" else 500400
    folder = f"imagenet_resnet50_{method}_DATE/pretrain/version_0/checkpoints"
    page = "https://github.com/lightly-ai/lightly"  # docs/source/getting_started/benchmarks.rst
    file = f"{folder}/epoch=99-step={steps}.ckpt"
    return Published(file, page, "lightly", "MIT", "imagenet", top1, weights=weights)


def _robust(file: str, repository: str, layout: str) -> Published:
    page = f"https://github.com/{repository}"
    return Published(file, page, layout, licence="", normalise=None)


_NC = "CC-BY-NC-4.0"
_META = "facebookresearch"

CATALOGUE: dict[str, Published] = {
    "torchvision-resnet50-v1": _torchvision("resnet50-0676ba61.pth", 76.130),
    "torchvision-resnet50-v2": _torchvision("resnet50-11ad3fa6.pth", 80.858),
    "torchvision-resnet18": _torchvision("resnet18-f37072fd.pth", 69.758),
    "barlow-twins": _plain("resnet50.pth", f"{_META}/barlowtwins", "MIT", 73.5),
    "vicreg": _plain("resnet50.pth", f"{_META}/vicreg", "MIT", 73.2),
    "dino": _plain("dino_resnet50_pretrain.pth", f"{_META}/dino", "Apache-2.0", 75.3),
    "byol": _plain("pretrain_res50x1.pth.tar", "ajtejankar/byol-convert", "", 74.6),
    "dino-full": Published(
        "dino_resnet50_pretrain_full_checkpoint.pth",
        page=f"https://github.com/{_META}/dino",
        layout="DINO",
        licence="Apache-2.0",
        normalise="imagenet",
        top1=75.3,
        weights="teacher",
    ),
    "simclr-1x": Published(
        "resnet50-1x.pth",
        page="https://github.com/tonylins/simclr-converter",
        layout="plain state dict",
        licence="Apache-2.0",
        normalise="none",
        top1=68.9,
        classifier=False,  # the converter leaves the bias of `fc` as it was drawn
    ),
    "swav-100": _swav("swav_100ep", 72.1),
    "swav-200": _swav("swav_200ep", 73.9),
    "swav-400": _swav("swav_400ep", 74.6),
    "swav-800": _swav("swav_800ep", 75.3),
    "swav-200-batch256": _swav("swav_200ep_bs256", 72.7),
    "swav-400-batch256": _swav("swav_400ep_bs256", 74.3),
    "swav-400-2x224": _swav("swav_400ep_2x224", 70.1),
    "deepcluster-v2-400": _swav("deepclusterv2_400ep", 74.3),
    "deepcluster-v2-800": _swav("deepclusterv2_800ep", 75.2),
    "deepcluster-v2-400-2x224": _swav("deepclusterv2_400ep_2x224", 70.2),
    "moco-v2-800": Published(
        "moco_v2_800ep_pretrain.pth.tar",
        page=f"https://github.com/{_META}/moco",
        layout="MoCo v1 or v2",
        licence="",
        normalise="imagenet",
        weights="q",
    ),
    "moco-v3-100": _moco_v3("r-50-100ep", 68.9),
    "moco-v3-300": _moco_v3("r-50-300ep", 72.8),
    "moco-v3-1000": _moco_v3("r-50-1000ep", 74.6),
    "moco-v3-vit-small": _moco_v3("vit-s-300ep"),
    "moco-v3-vit-base": _moco_v3("vit-b-300ep"),
    "dino-vit-small": _plain("dino_deitsmall16_pretrain.pth", f"{_META}/dino", "Apache-2.0"),
    "dino-vit-base": _plain("dino_vitbase16_pretrain.pth", f"{_META}/dino", "Apache-2.0"),
    "simsiam-batch512": _simsiam("100ep", 68.1),
    "simsiam-batch256": _simsiam("100ep-256bs", 68.3),
    "vissl-simclr-100": _vissl(100, 64.4),
    "vissl-simclr-200": _vissl(200, 66.6),
    "vissl-simclr-400": _vissl(400, 67.7),
    "vissl-simclr-800": _vissl(800, 69.7),
    "vissl-simclr-1000": _vissl(1000, 68.8),
    "lightly-barlow-twins": _lightly("barlowtwins", 62.9),
    "lightly-byol": _lightly("byol", 62.5, "student"),
    "lightly-dino": _lightly("dino", 68.2, "teacher"),
    "lightly-moco-v2": _lightly("mocov2", 61.5, "q"),
    "lightly-simclr": _lightly("simclr", 63.2),
    "lightly-swav": _lightly("swav", 67.2),
    "lightly-vicreg": _lightly("vicreg", 63.0),
    "acl": _robust(
        "model.pt",
        "VITA-Group/Adversarial-Contrastive-Learning",
        "ACL or DynACL, adversarial route",
    ),
    "dynacl": _robust("model.pt", "PKU-ML/DYNACL", "ACL or DynACL, adversarial route"),
}


def by_hash(sha256: str) -> Published | None:
    """Return the published file with a hash, in hexadecimal digits; None if it is unknown."""
    for entry in CATALOGUE.values():
        if entry.sha256 and sha256.startswith(entry.sha256):
            return entry
    return None
