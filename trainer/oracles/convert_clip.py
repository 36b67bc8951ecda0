"""A CLIP checkpoint with open_clip's names as a transformers folder.

`python -m trainer.oracles.convert_clip CHECKPOINT OUTPUT --like FOLDER` takes all but the weights from FOLDER.
"""

from __future__ import annotations

import argparse
import pickle
import re
import shutil
import sys
from pathlib import Path

import torch

from common.files import share_as_usual
from trainer.oracles.models import check_finite, model_folder

_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",  # transformers' own spelling
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_IGNORED = {"attn_mask"}


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under transformers' names. Raises ValueError that names a tensor that has no place there."""
    out = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        stem, _, kind = name.rpartition(".")
        if name in _IGNORED:
            continue
        if name in _NAMES:
            out[_NAMES[name]] = tensor
        elif name in _PROJECTIONS:
            out[_PROJECTIONS[name]] = tensor.T.contiguous()
        elif stem in _NORMS:
            out[f"{_NORMS[stem]}.{kind}"] = tensor
        elif match := re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name):
            layer = f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}"
            out |= _block(name, layer, match[3], tensor)
        else:
            raise ValueError(f"checkpoint: tensor {name} is none of a CLIP by open_clip")
    return out


def _block(name: str, layer: str, part: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.removeprefix("attn.in_proj_")
        return {f"{layer}.self_attn.{p}_proj.{kind}": t for p, t in zip("qkv", tensor.chunk(3), strict=True)}
    stem, _, kind = part.rpartition(".")
    if stem == "attn.out_proj":
        return {f"{layer}.self_attn.out_proj.{kind}": tensor}
    if stem not in _BLOCK:
        raise ValueError(f"checkpoint: tensor {name} is none of a CLIP by open_clip")
    return {f"{layer}.{_BLOCK[stem]}.{kind}": tensor}


def convert(checkpoint: Path, output: Path, like: Path) -> Path:
    """Write the folder. Raises ValueError that names what is missing, or does not fit the config of `like`."""
    from transformers import CLIPConfig, CLIPModel

    model_folder("like", like, "preprocessor_config.json", "tokenizer_config.json")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"checkpoint: {checkpoint} cannot be read as tensors alone ({error})") from error
    state = {k: v.float() for k, v in renamed(content.get("state_dict", content)).items()}
    check_finite("checkpoint", checkpoint, state.items())
    model = CLIPModel(CLIPConfig.from_pretrained(like))
    try:
        missing, _ = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(
            f"like: the config of {like} is of another size ({str(error).splitlines()[1].strip()})"
        ) from error
    if absent := [name for name in missing if not name.endswith("position_ids")]:
        raise ValueError(f"checkpoint: tensor {absent[0]} is missing")
    if extra := sorted(set(state) - set(model.state_dict())):
        raise ValueError(f"checkpoint: {extra[0]} is more than the config of {like} has")
    model.save_pretrained(output)
    share_as_usual(output)
    for file in like.iterdir():
        if file.is_file() and file.name != "config.json" and file.suffix in (".json", ".txt"):
            shutil.copy(file, output / file.name)
    return output


def main(argv: list[str] | None = None) -> int:
    """The command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description="A CLIP checkpoint of open_clip as a transformers folder.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--like", type=Path, required=True, help="folder with config, preprocessor and tokenizer")
    a = parser.parse_args(argv)
    try:
        print(convert(a.checkpoint, a.output, a.like))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
