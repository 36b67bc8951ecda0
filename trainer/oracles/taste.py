"""Oracles of general taste: PickScore and the LAION aesthetic score through transformers, and the size as a JPEG.

None has a natural yes or no, so each takes `like_from`, the score in 0..1 from which an image is liked.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainer.oracles.base import Verdict
from trainer.oracles.models import ClipScorer, check_finite, pick_device

HIGHEST_PICKSCORE = 26.0  # what Flow-GRPO divides by; good images have 22
HIGHEST_AESTHETIC = 10.0


def check_share(field: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{field}: is {value:g}; it must be in 0..1")
    return value


def verdict(score: float, like_from: float, reason: str) -> Verdict:
    score = min(1.0, max(0.0, score))
    return Verdict(score, score >= like_from, reason, score >= like_from)


class PickScoreOracle:
    """How well people would like the image for its prompt: CLIP-H trained on Pick-a-Pic, over 26."""

    name = "pickscore"

    def __init__(self, *, model: Path, device: str = "auto", like_from: float = 0.85):
        """`model` is a folder with yuvalkirstain/PickScore_v1 and its processor (that of CLIP ViT-H/14)."""
        self._like_from = check_share("pickscore.like_from", like_from)
        self._clip = ClipScorer(model, device=pick_device("pickscore.device", device), field="pickscore.model")

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; metadata is not looked at."""
        if not images:
            return []
        cosines = self._clip.matches(images, prompts)
        values = (cosines * self._clip.model.logit_scale.detach().exp().float()).tolist()
        return [verdict(v / HIGHEST_PICKSCORE, self._like_from, f"PickScore {v:.2f}") for v in values]


class AestheticOracle:
    """LAION's aesthetic score: a stack of linear layers on CLIP ViT-L/14's image embedding, over 10."""

    name = "aesthetic"

    def __init__(self, *, clip: Path, head: Path, device: str = "auto", like_from: float = 0.6):
        """`head` is a safetensors file of layers.<n>.weight and layers.<n>.bias. Raises ValueError that names the option
        when the layers do not lead from CLIP's embedding to one number."""
        self._like_from = check_share("aesthetic.like_from", like_from)
        place = pick_device("aesthetic.device", device)
        self._clip = ClipScorer(clip, device=place, field="aesthetic.clip")
        self._layers = load_linear_layers(
            "aesthetic.head", head, inputs=self._clip.model.config.projection_dim, device=place
        )

    @torch.no_grad()
    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; prompts and metadata are not looked at."""
        if not images:
            return []
        values = self._clip.images(images)
        for weight, bias in self._layers:
            values = torch.nn.functional.linear(values, weight, bias)
        rows = values[:, 0].tolist()
        return [verdict(v / HIGHEST_AESTHETIC, self._like_from, f"aesthetic score {v:.2f}") for v in rows]


def load_linear_layers(
    field: str, path: Path, *, inputs: int, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(weight, bias) of each layer in order. Raises ValueError that names the option unless they fit on each other."""
    try:
        tensors = load_file(path, device=str(device))
    except (OSError, SafetensorError) as e:
        raise ValueError(f"{field}: {path} cannot be read as safetensors ({e})") from None
    check_finite(field, path, tensors.items())
    numbers = sorted(int(key.split(".")[1]) for key in tensors if key.startswith("layers.") and key.endswith(".weight"))
    layers = []
    for n in numbers:
        weight, bias = tensors[f"layers.{n}.weight"].float(), tensors.get(f"layers.{n}.bias")
        if weight.ndim != 2 or weight.shape[1] != inputs or bias is None or bias.shape != weight.shape[:1]:
            raise ValueError(f"{field}: layers.{n} of {path} does not take {inputs} numbers with a bias an output")
        layers.append((weight, bias.float()))
        inputs = len(weight)
    if not layers or inputs != 1:
        raise ValueError(f"{field}: the layers of {path} do not end in one number")
    return layers


class JpegOracle:
    """Likes images that compress well (or badly): a reward that needs no model, for trying a training run out."""

    name = "jpeg"

    def __init__(self, *, large: bool = False, most_bits: float = 8.0, quality: int = 95, like_from: float = 0.5):
        """The score is 1 - size / `most_bits`, size in bits a pixel as a JPEG of `quality`; `large` turns it round."""
        self._like_from = check_share("jpeg.like_from", like_from)
        if most_bits <= 0:
            raise ValueError(f"jpeg.most_bits: is {most_bits:g}; it must be above 0")
        if not 1 <= quality <= 95:
            raise ValueError(f"jpeg.quality: is {quality}; it must be in 1..95")
        self._large, self._most_bits, self._quality = large, most_bits, quality

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; prompts and metadata are not looked at."""
        return [self._judge(image) for image in images]

    def _judge(self, image: Image.Image) -> Verdict:
        data = io.BytesIO()
        image.convert("RGB").save(data, "JPEG", quality=self._quality)
        bits = 8 * data.tell() / (image.width * image.height)
        share = min(1.0, bits / self._most_bits)
        return verdict(share if self._large else 1 - share, self._like_from, f"{bits:.2f} bits a pixel")
