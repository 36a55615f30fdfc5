"""The CF-AMC-SSL step as published scripts of self-supervised learning are commonly written.

PIL transforms for one crop at a time in the workers of a DataLoader, float32, images in NCHW, one
D x D log-determinant a crop, LARS with a loop over parameters that waits for the device, and the
perturbation on the host. It computes what `benchmarks.ours` computes (a test compares them), so
that a difference in time is one of how, not of what. Nothing in here is copied from such a script.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

from benchmarks.recipe import Recipe


class PublishedStep:
    """Free adversarial training of EMP-SSL on crops that workers make; a call trains one turn.

    Attributes:
        net: encoder and projector, in train mode.
        lap: told the name of each part of a step that has just ended.
    """

    def __init__(
        self, images: Tensor, recipe: Recipe, *, device: torch.device, workers: int
    ) -> None:
        """Take (N, 3, H, W) uint8 images; N / batch minibatches are a turn."""
        self.recipe, self.device = recipe, device
        dataset = CropsDataset(images, pil_transform(recipe.size), recipe.crops)
        self.loader = DataLoader(
            dataset,
            batch_size=recipe.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )
        self.net = Network(hidden=recipe.hidden, projection=recipe.projection).to(device).train()
        self.optimizer = LarsLoop(
            torch.optim.SGD(
                self.net.parameters(),
                lr=recipe.lr,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                nesterov=True,
            ),
            eta=recipe.eta,
        )
        shape = (recipe.crops * recipe.batch, 3, recipe.size, recipe.size)
        self.delta = torch.zeros(shape)  # on the host, as long as the training
        self.lap = silent

    def __call__(self) -> None:
        """Train on every minibatch of the loader once."""
        for crops in self.loader:
            self.lap("data")
            with convolutions_by_default():
                self.train(crops)

    def train(self, crops: list[Tensor]) -> list[float]:
        """Replay a minibatch, a list of V tensors (B, 3, H, W); return the loss of each replay."""
        recipe = self.recipe
        images = torch.cat(crops)  # (V B, 3, H, W)
        on_device = images.to(self.device, non_blocking=True)
        losses = []
        for _ in range(recipe.replays):
            noise = self.delta.detach().to(self.device).requires_grad_()
            z = self.net(on_device + noise)
            loss = emp_loss(list(z.chunk(recipe.crops)), eps=recipe.tcr_eps)
            self.optimizer.zero_grad()
            loss.backward()
            self.lap("backward")
            self.optimizer.step()
            self.lap("optimizer")
            assert noise.grad is not None
            self.delta += recipe.step_size * noise.grad.sign().cpu()
            self.delta.clamp_(-recipe.eps, recipe.eps)
            self.delta = (images + self.delta).clamp(0, 1) - images
            losses.append(loss.item())
        self.lap("perturbation")
        return losses


class CropsDataset(Dataset[list[Tensor]]):
    """Images of which each is given as V random crops."""

    def __init__(self, images: Tensor, transform: transforms.Compose, crops: int) -> None:
        self.images = images.permute(0, 2, 3, 1).numpy()  # (N, H, W, 3) uint8, as PIL wants it
        self.transform, self.crops = transform, crops

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        """Return V tensors (3, size, size) in [0, 1]."""
        image = Image.fromarray(self.images[index])
        return [self.transform(image) for _ in range(self.crops)]


def pil_transform(size: int) -> transforms.Compose:
    """Return EMP-SSL's augmentation, PIL image to tensor (3, size, size) in [0, 1]."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.2)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([PilBlur(0.1, 2.0)], p=0.1),
            transforms.RandomApply([PilSolarize()], p=0.1),
            transforms.ToTensor(),
        ]
    )


class PilBlur:
    """PIL's Gaussian blur, its sigma uniform in a range, in pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur an image."""
        sigma = torch.empty(()).uniform_(self.low, self.high).item()
        return image.filter(ImageFilter.GaussianBlur(sigma))


class PilSolarize:
    """PIL's solarization at half of the range."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Invert what is 128 or more."""
        return ImageOps.solarize(image, 128)


class Network(nn.Module):
    """torchvision's ResNet-18 with a CIFAR stem, a pre-feature and a projector.

    The names of its parameters are those of `robustviews.encoder.Encoder`.
    """

    def __init__(self, *, hidden: int, projection: int) -> None:
        super().__init__()
        self.backbone = models.resnet18(weights=None)
        self.backbone.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        self.backbone.maxpool = nn.Identity()
        self.backbone.fc = nn.Identity()
        self.prefeature = nn.Sequential(nn.Linear(512, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        self.projector = nn.Sequential(
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, projection),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to unit vectors (N, projection)."""
        z = self.projector(self.prefeature(self.backbone(images)))
        return functional.normalize(z, dim=1)


class LarsLoop:
    """Layer-wise rates around SGD: one parameter after the other, each with its questions."""

    def __init__(self, sgd: torch.optim.SGD, *, eta: float, eps: float = 1e-8) -> None:
        self.sgd, self.eta, self.eps = sgd, eta, eps

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.sgd.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Rescale the gradient of every matrix, then let SGD step without weight decay."""
        decays = []
        for group in self.sgd.param_groups:
            decays.append(group["weight_decay"])
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.ndim != 1:
                    self._rescale(parameter, group["lr"], group["weight_decay"])
            group["weight_decay"] = 0.0
        self.sgd.step()
        for group, decay in zip(self.sgd.param_groups, decays, strict=True):
            group["weight_decay"] = decay

    def _rescale(self, parameter: Tensor, lr: float, decay: float) -> None:
        assert parameter.grad is not None
        norm, grad_norm = torch.norm(parameter), torch.norm(parameter.grad)
        if norm != 0 and grad_norm != 0:  # waits for the device
            rate = self.eta * norm / (grad_norm + decay * norm + self.eps)
            rate = min(rate / lr, 1)  # and so does this
            parameter.grad += decay * parameter
            parameter.grad *= rate


def emp_loss(crops: list[Tensor], *, eps: float) -> Tensor:
    """Return the EMP-SSL loss of V tensors (B, D): 200 x invariance + coding rate."""
    mean = torch.stack(crops).mean(dim=0)
    invariance = sum(functional.cosine_similarity(z, mean).mean() for z in crops) / len(crops)
    return -200 * invariance - coding_rate(crops, eps=eps)


def coding_rate(crops: list[Tensor], *, eps: float) -> Tensor:
    """Return the mean over V tensors (B, D) of 1/2 logdet(I + D / (B eps) Z^T Z)."""
    total = torch.zeros((), device=crops[0].device)
    for z in crops:
        batch, dim = z.shape
        identity = torch.eye(dim, device=z.device)
        total = total + 0.5 * torch.logdet(identity + dim / (batch * eps) * z.T @ z)
    return total / len(crops)


@contextlib.contextmanager
def convolutions_by_default() -> Iterator[None]:
    """Let cuDNN convolve in TF32, as torch does unless it is told otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def silent(part: str) -> None:
    """Take no notice of the end of a part."""
