"""Oracles that were trained on people's preferences: HPS v2.1 through transformers; ImageReward and HPSv3 through their own
packages, where those are installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist

import torch
from PIL import Image, ImageOps

from trainer.oracles.base import Verdict
from trainer.oracles.models import ClipScorer, pick_device
from trainer.oracles.taste import check_share, verdict

HIGHEST_HPSV2 = 0.4  # a cosine; good images have .28 to .30
HIGHEST_HPSV3 = 15.0


class HPSv2Oracle:
    """How well people would like the image for its prompt: the cosine of CLIP ViT-H/14 trained on HPD v2, over 0.4."""

    name = "hpsv2"

    def __init__(self, *, model: Path, device: str = "auto", like_from: float = 0.7):
        """`model` is a folder that `convert_clip` wrote."""
        self._like_from = check_share("hpsv2.like_from", like_from)
        self._clip = ClipScorer(model, device=pick_device("hpsv2.device", device), field="hpsv2.model")

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; metadata is not looked at."""
        if not images:
            return []
        # HPS pads to a square where CLIP cuts.
        squares = [ImageOps.pad(i.convert("RGB"), (max(i.size), max(i.size))) for i in images]
        values = self._clip.matches(squares, prompts).tolist()
        return [verdict(v / HIGHEST_HPSV2, self._like_from, f"HPS v2.1 {v:.3f}") for v in values]


def _package(field: str, module: str, package: str):
    """The module. Raises ValueError that says what to install when it is not there or does not load."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{field}: {module} cannot be loaded ({error}); run pip install {package}") from error


def _needs(field: str, path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{field}: there is no file {path}")
    return str(path)


class ImageRewardOracle:
    """ImageReward, whose scores have mean 0 and deviation 1: the share of a normal distribution below the score."""

    name = "imagereward"

    def __init__(self, *, model: Path, device: str = "auto", like_from: float = 0.5):
        """`model` is a folder with ImageReward.pt and med_config.json. Raises ValueError that names what is missing."""
        self._like_from = check_share("imagereward.like_from", like_from)
        weights, config = (_needs("imagereward.model", model / n) for n in ("ImageReward.pt", "med_config.json"))
        made = _package("imagereward", "ImageReward.ImageReward", "image-reward").ImageReward
        place = pick_device("imagereward.device", device)
        self._model = made(med_config=config, device=place).to(place)
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=False)
        self._model.eval()

    @torch.no_grad()
    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; metadata is not looked at."""
        values = [float(self._model.score(p, i.convert("RGB"))) for i, p in zip(images, prompts, strict=True)]
        return [verdict(normal_share(v), self._like_from, f"ImageReward {v:.2f}") for v in values]


def normal_share(value: float) -> float:
    """The share of a standard normal distribution below the value."""
    return NormalDist().cdf(value)


class HPSv3Oracle:
    """HPSv3, a vision-language model that gives each image a mean and a deviation: the mean over 15."""

    name = "hpsv3"

    def __init__(self, *, checkpoint: Path, device: str = "auto", batch: int = 4, like_from: float = 0.5):
        """`checkpoint` is HPSv3.safetensors. Raises ValueError that names what is missing."""
        self._like_from = check_share("hpsv3.like_from", like_from)
        self._batch = max(1, batch)
        file = _needs("hpsv3.checkpoint", checkpoint)
        made = _package("hpsv3", "hpsv3", "hpsv3").HPSv3RewardInferencer
        self._model = made(checkpoint_path=file, device=str(pick_device("hpsv3.device", device)))

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; metadata is not looked at."""
        values: list[float] = []
        for start in range(0, len(images), self._batch):
            part = slice(start, start + self._batch)
            pictures = [image.convert("RGB") for image in images[part]]
            values += self._model.reward(prompts=list(prompts[part]), image_paths=pictures)[:, 0].float().tolist()
        return [verdict(v / HIGHEST_HPSV3, self._like_from, f"HPSv3 {v:.2f}") for v in values]
