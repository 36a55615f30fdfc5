"""Vision transformers with a class token, of the optional package timm.

Source: Dosovitskiy et al. 2021, sizes S and B of Touvron et al. 2021, patches of 16 pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustviews.resnet import Normalisation, Normalise

WIDTHS = {"vit_small": 384, "vit_base": 768}
DEPTH, HEADS, PATCH, SIDE = 12, {"vit_small": 6, "vit_base": 12}, 16, 224
MISSING = "vision transformers need timm; type: pip install 'robustviews[vit]'"


class TransformerError(ValueError):
    """The optional package timm is missing, or images do not consist of whole patches."""


class VisionTransformer(nn.Module):
    """A vision transformer without its last layer; parameter names are timm's, below `vit`.

    Normalisation is part of the network, so that attacks see images in [0, 1].
    """

    memory_format = torch.contiguous_format

    def __init__(
        self, kind: str, *, heads: int | None = None, normalise: Normalisation | None = None
    ) -> None:
        """Make a network with new weights.

        Args:
            kind: key of `WIDTHS`.
            heads: attention heads of a block; None for those of timm and DINO.
            normalise: mean and std of R, G, B; None for none.

        Raises:
            TransformerError: timm is not installed.
        """
        super().__init__()
        self.normalise = None if normalise is None else Normalise(*normalise)
        self.features = WIDTHS[kind]
        self.vit = _timm().VisionTransformer(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=self.features,
            depth=DEPTH,
            num_heads=heads or HEADS[kind],
            num_classes=0,
            dynamic_img_size=True,
        )
        for block in self.vit.blocks:
            block.attn.fused_attn = False  # whose gradient on a GPU differs from run to run

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W), sides multiples of 16, to class tokens (N, features)."""
        features: Tensor = self.vit(self._checked(images))
        return features

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images to the last tokens of their patches, one level (N, features, H/16, W/16)."""
        tokens: Tensor = self.vit.forward_features(self._checked(images))
        height, width = (side // PATCH for side in images.shape[2:])
        return (tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width)),)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the only level."""
        return (self.features,)

    def _checked(self, images: Tensor) -> Tensor:
        """Return normalised images; refuse those that do not consist of whole patches."""
        height, width = images.shape[2:]
        if height % PATCH or width % PATCH:
            expected = f"expected sides that are multiples of {PATCH}"
            raise TransformerError(
                f"{expected}, found {height} x {width}; set the size of the data set"
            )
        return images if self.normalise is None else self.normalise(images)


def _timm() -> Any:  # noqa: ANN401  # an optional module
    try:
        from timm.models import vision_transformer
    except ImportError as error:
        raise TransformerError(f"{MISSING} ({error})") from None
    return vision_transformer


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all weights, as timm names them; needs no timm."""
    d = WIDTHS[kind]
    found: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 1 + (SIDE // PATCH) ** 2, d),
        **_layer("patch_embed.proj", d, 3, PATCH, PATCH),
        **_layer("norm", d),
    }
    for number in range(DEPTH):
        block = f"blocks.{number}."
        found |= _layer(f"{block}norm1", d) | _layer(f"{block}norm2", d)
        found |= _layer(f"{block}attn.qkv", 3 * d, d) | _layer(f"{block}attn.proj", d, d)
        found |= _layer(f"{block}mlp.fc1", 4 * d, d) | _layer(f"{block}mlp.fc2", d, 4 * d)
    return found


def _layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
