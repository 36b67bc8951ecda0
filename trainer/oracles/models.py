"""Saved transformers models for oracles: folders on this machine with safetensors; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from trainer.finite import first_not_finite


def model_folder(field: str, folder: Path, *needed: str) -> Path:
    """The folder. Raises ValueError that names the option when it, or one of the files needed, is not there."""
    missing = [name for name in ("config.json", *needed) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{field}: {folder} has no {missing[0]}; give the folder of a saved transformers model")
    return folder


def pick_device(field: str, device: str) -> torch.device:
    """ "auto" is the GPU if there is one. Raises ValueError that names the option on a device that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f"{field}: {device!r} is not a device of this machine ({str(e).splitlines()[0]})") from None


def check_finite(field: str, where: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise ValueError, naming the option and the tensor, on weights that are NaN or infinite."""
    if name := first_not_finite(tensors):
        raise ValueError(f"{field}: {name} in {where} is not finite; take other weights")


class ClipScorer:
    """CLIP's embeddings of images and texts, of length one, (N, D) in float32."""

    def __init__(self, folder: Path, *, device: torch.device, field: str = "clip"):
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        model_folder(field, folder, "preprocessor_config.json", "model.safetensors", "tokenizer_config.json")
        self._processor = CLIPImageProcessorPil.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        check_finite(field, folder, self.model.named_parameters())
        self.model.to(device).eval()

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], *, batch: int = 16) -> torch.Tensor:
        """Embeddings of images of any sizes."""
        rows = []
        for start in range(0, len(images), batch):
            part = [image.convert("RGB") for image in images[start : start + batch]]
            pixels = self._processor(part, return_tensors="pt").to(self.model.device)
            rows.append(self.model.get_image_features(**pixels).pooler_output.float())
        return F.normalize(torch.cat(rows), dim=-1)

    def matches(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """The cosine of each image and its prompt, (N,); a prompt that comes again is embedded once."""
        different = list(dict.fromkeys(prompts))
        texts = dict(zip(different, self.texts(different), strict=True))
        return (self.images(images) * torch.stack([texts[prompt] for prompt in prompts])).sum(1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of texts, cut at the model's longest."""
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        tokens = tokens.to(self.model.device)
        features = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(features.pooler_output.float(), dim=-1)
