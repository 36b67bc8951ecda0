"""Folders with the shapes of real models, and no weights: what `plan` reads of them. A few kilobytes each.

Sizes of SD3.5 are those of its public configuration files; Z-Image's and FLUX.2's are diffusers' defaults and the classes'
own arithmetic (klein 9B: 8 and 24 blocks of width 4096 come to 9.1 billion parameters). Tokenizers are the tests' own.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler

from tests.trainer.backends.tiny import clip_tokenizer, qwen_tokenizer, t5_tokenizer

VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
}
FLUX2_VAE = VAE | {"_class_name": "AutoencoderKLFlux2", "latent_channels": 32, "patch_size": [2, 2]}
for _name in ("use_quant_conv", "use_post_quant_conv", "scaling_factor", "shift_factor"):
    del FLUX2_VAE[_name]
T5_XXL = {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}


def _clip(width: int, layers: int, heads: int) -> dict:
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    }


def _qwen(width: int, inner: int, kind: str) -> dict:
    return {
        "architectures": [kind],
        "model_type": "qwen3",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "use_cache": False,
    }


def _sd35(width: int, layers: int, positions: int, dual: int) -> dict:
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": layers,
        "attention_head_dim": 64,
        "num_attention_heads": width // 64,
        "joint_attention_dim": 4096,
        "caption_projection_dim": width,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": positions,
        "dual_attention_layers": list(range(dual)),
        "qk_norm": "rms_norm",
    }


def _klein(width: int, text: int, layers: int, singles: int) -> dict:
    return {
        "_class_name": "Flux2Transformer2DModel",
        "patch_size": 1,
        "in_channels": 128,
        "num_layers": layers,
        "num_single_layers": singles,
        "attention_head_dim": 128,
        "num_attention_heads": width // 128,
        "joint_attention_dim": 3 * text,
        "axes_dims_rope": [32, 32, 32, 32],
        "guidance_embeds": False,
    }


def _model(pipeline: str, network: dict, vae: dict, encoders: list[dict], tokenizers: list, **index) -> dict:
    return {"pipeline": pipeline, "network": network, "vae": vae, "encoders": encoders, "tokenizers": tokenizers} | {
        "index": index
    }


def _sd3(network: dict) -> dict:
    encoders = [_clip(768, 12, 12), _clip(1280, 32, 20), T5_XXL]
    return _model("StableDiffusion3Pipeline", network, VAE, encoders, [clip_tokenizer, clip_tokenizer, t5_tokenizer])


Z_IMAGE = {"_class_name": "ZImageTransformer2DModel", "axes_lens": [1536, 512, 512]}
MODELS = {
    "SD3.5 Medium": _sd3(_sd35(1536, 24, 384, 13)),
    "SD3.5 Large": _sd3(_sd35(2432, 38, 192, 0)),
    "Z-Image": _model("ZImagePipeline", Z_IMAGE, VAE, [_qwen(2560, 9728, "Qwen3Model")], [qwen_tokenizer]),
    "FLUX.2 klein 4B": _model(
        "Flux2KleinPipeline",
        _klein(3072, 2560, 5, 20),
        FLUX2_VAE,
        [_qwen(2560, 9728, "Qwen3ForCausalLM")],
        [qwen_tokenizer],
        is_distilled=True,
    ),
    "FLUX.2 klein 9B": _model(
        "Flux2KleinPipeline",
        _klein(4096, 4096, 8, 24),
        FLUX2_VAE,
        [_qwen(4096, 12288, "Qwen3ForCausalLM")],
        [qwen_tokenizer],
        is_distilled=True,
    ),
}


def write(name: str, folder: Path, size: int) -> Path:
    """The folder of one of `MODELS` that makes images of `size` pixels; returns it."""
    model = MODELS[name]
    index = {"_class_name": model["pipeline"], "_diffusers_version": "0.42.0"} | model["index"]
    network, vae = model["network"], model["vae"]
    _part(folder / "transformer", network, "diffusion_pytorch_model")
    _part(folder / "vae", vae, "diffusion_pytorch_model")
    index |= {"transformer": ["diffusers", network["_class_name"]], "vae": ["diffusers", vae["_class_name"]]}
    dynamic = model["pipeline"] == "Flux2KleinPipeline"
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic).save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    for i, (encoder, tokenizer) in enumerate(zip(model["encoders"], model["tokenizers"], strict=True), 1):
        ending = "" if i == 1 else f"_{i}"
        _part(folder / f"text_encoder{ending}", encoder, "model")
        made = tokenizer()
        made.save_pretrained(folder / f"tokenizer{ending}")
        index |= {
            f"text_encoder{ending}": ["transformers", encoder["architectures"][0]],
            f"tokenizer{ending}": ["transformers", type(made).__name__],
        }
    if model["pipeline"] == "StableDiffusion3Pipeline":
        index |= {"image_encoder": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "likestep.json").write_text(json.dumps({"size": size}))
    return folder


def _part(folder: Path, config: dict, weights: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / f"{weights}.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")  # a whole file of no tensors
