"""Objects in photographs: Mask2Former finds them and CLIP names their colours, both through transformers.

This is GenEval's measuring device (Mask2Former swin-small for COCO instances, CLIP ViT-L/14) without mmdet and open_clip.
Models are folders on this machine with safetensors; nothing is downloaded.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from trainer.oracles.geneval import CONFIDENCE, Detection
from trainer.oracles.models import ClipScorer, check_finite, model_folder

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}", "a photo of a {color} object")
BACKGROUND = "#999"
# GenEval's names of COCO classes where they differ from those that detectors come with.
_GENEVAL_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "keyboard": "computer keyboard",
    "motorbike": "motorcycle",
    "mouse": "computer mouse",
    "pottedplant": "potted plant",
    "remote": "tv remote",
    "sofa": "couch",
    "tvmonitor": "tv",
}


@dataclass(frozen=True)
class Instance:
    """A found object and its boolean mask (h, w) on the image."""

    detection: Detection
    mask: torch.Tensor


def find_instances(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    labels: Sequence[str],
    *,
    padded: tuple[int, int],
    resized: tuple[int, int],
    size: tuple[int, int],
    threshold: float = CONFIDENCE,
) -> list[Instance]:
    """Mask2Former's instances above the threshold, as mmdet computes them, in no order.

    class_logits (Q, classes + 1) with "no object" last, mask_logits (Q, h, w). `padded` is the size of the model's input,
    `resized` that of the image in its upper left corner, `size` the image's own; all are (height, width). The Q most
    probable pairs of query and class are taken; confidence is the class's probability times the mean probability of the
    mask's own pixels. transformers' post-processing differs: it passes through 384 × 384 masks and keeps the padding.
    """
    scores, pairs = class_logits.float().softmax(-1)[:, :-1].flatten().topk(len(class_logits))
    pairs, scores = pairs[scores > threshold], scores[scores > threshold]  # a mask can only lower a score
    found = []
    for pair, score in zip(pairs.tolist(), scores.tolist(), strict=True):
        query, label = divmod(pair, len(labels))
        logits = F.interpolate(mask_logits[query].float()[None, None], padded, mode="bilinear", align_corners=False)
        logits = logits[..., : resized[0], : resized[1]]
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0, 0]
        mask = logits > 0
        if not mask.any():
            continue
        confidence = score * logits[mask].sigmoid().mean().item()
        if confidence <= threshold:
            continue
        rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        found.append(Instance(Detection(labels[label], confidence, box), mask.cpu()))
    return found


class Detector:
    """Mask2Former on images one at a time, so that none is padded to another's size."""

    def __init__(self, folder: Path, *, device: torch.device, field: str = "detector"):
        from transformers import Mask2FormerForUniversalSegmentation
        from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

        model_folder(field, folder, "preprocessor_config.json", "model.safetensors")
        self._processor = Mask2FormerImageProcessorPil.from_pretrained(folder)
        self._model = Mask2FormerForUniversalSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        check_finite(field, folder, self._model.named_parameters())
        self._model.to(device).eval()
        names = self._model.config.id2label
        self.labels = [_GENEVAL_NAMES.get(names[i], names[i]) for i in range(len(names))]

    @torch.no_grad()
    def find(self, image: Image.Image, *, threshold: float = CONFIDENCE) -> list[Instance]:
        """The image's objects with a confidence above the threshold; boxes in the image's pixels."""
        inputs = self._processor(image.convert("RGB"), return_tensors="pt").to(self._model.device)
        output = self._model(**inputs)
        inside = inputs["pixel_mask"][0].bool()
        return find_instances(
            output.class_queries_logits[0],
            output.masks_queries_logits[0],
            self.labels,
            padded=tuple(inputs["pixel_values"].shape[-2:]),
            resized=(int(inside.any(1).sum()), int(inside.any(0).sum())),
            size=(image.height, image.width),
            threshold=threshold,
        )


def color_crop(image: Image.Image, instance: Instance) -> Image.Image:
    """The object alone on GenEval's grey, cut to its box."""
    blank = Image.new("RGB", image.size, BACKGROUND)
    mask = Image.fromarray(instance.mask.numpy())
    return Image.composite(image.convert("RGB"), blank, mask).crop(tuple(int(v) for v in instance.detection.box))


class ColorNamer:
    """Which of GenEval's ten colours an object has, by CLIP and three templates."""

    def __init__(self, clip: ClipScorer):
        self._clip = clip
        self._directions = functools.lru_cache(maxsize=None)(self._directions_of)

    def _directions_of(self, label: str) -> torch.Tensor:
        texts = [t.format(color=color, label=label) for color in COLORS for t in TEMPLATES]
        means = self._clip.texts(texts).view(len(COLORS), len(TEMPLATES), -1).mean(1)
        return F.normalize(means, dim=-1)

    def name(self, image: Image.Image, instances: Sequence[Instance]) -> list[str]:
        """One colour an instance."""
        if not instances:
            return []
        features = self._clip.images([color_crop(image, i) for i in instances])
        directions = torch.stack([self._directions(i.detection.label) for i in instances])
        best = torch.einsum("nd,ncd->nc", features, directions).argmax(1)
        return [COLORS[i] for i in best.tolist()]
