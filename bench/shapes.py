"""Folders with the shapes of real models and no weights, a few kilobytes each: what `plan` reads, and what the GPU check
fills with random numbers.

Sizes of SD3.5 are those of its public configuration files; Z-Image's, FLUX's and Qwen-Image's are diffusers' and
transformers' defaults and the classes' own arithmetic (klein 9B: 8 and 24 blocks of width 4096 come to 9.1 billion
parameters). Tokenizers are the demo's: how many tokens a prompt has is the text encoders' business.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import PreTrainedTokenizerFast

from trainer.demo.model import build_tokenizer, vocabulary

CLIP_TOKENS, T5_TOKENS, CHAT_TOKENS = 77, 256, 512  # of a prompt, at most
CHAT = "{% for message in messages %}{{ message.content }} {% endfor %}"
SD3_LATENTS = {"scaling_factor": 1.5305, "shift_factor": 0.0609}
FLUX_LATENTS = {"scaling_factor": 0.3611, "shift_factor": 0.1159}  # Z-Image's autoencoder is FLUX.1's
# Text encoders for what is given embeddings: their widths, and next to nothing between.
SHALLOW = {
    "clip_text_model": {"num_hidden_layers": 2, "intermediate_size": 64},
    "t5": {"num_layers": 1, "d_kv": 8, "d_ff": 32, "num_heads": 2},
    "qwen3": {
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
}


def _vae(tiny: bool = False, **config) -> dict:
    sizes = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}
    if tiny:
        sizes = {"block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 2}
    return {
        "_class_name": "AutoencoderKL",
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        **sizes,
        **config,
    }


FLUX2_VAE = _vae(_class_name="AutoencoderKLFlux2", latent_channels=32, patch_size=[2, 2])
del FLUX2_VAE["use_quant_conv"], FLUX2_VAE["use_post_quant_conv"]


def _clip(width: int, layers: int, heads: int) -> dict:
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
        "max_position_embeddings": CLIP_TOKENS,
        "vocab_size": 49408,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _t5(width: int) -> dict:
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "d_model": width,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
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


def _decoder(width: int, inner: int, layers: int, heads: int, groups: int, tokens: int) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": tokens,
        "max_position_embeddings": 32768,
        "use_cache": False,
    }


def _qwen_vl() -> dict:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "text_config": _decoder(3584, 18944, 28, 28, 4, 152064) | {"rope_parameters": rope},
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
    }


def _mistral() -> dict:
    text = _decoder(5120, 32768, 40, 32, 8, 131072) | {"model_type": "mistral", "head_dim": 128}
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "text_config": text,
        "vision_config": {"model_type": "pixtral"},
    }


def _model(pipeline: str, network: dict, vae: dict, encoders: list[dict], *, distilled: bool = False, **index) -> dict:
    found = {"pipeline": pipeline, "network": network, "vae": vae, "encoders": encoders, "index": index}
    return found | {"distilled": distilled}


def _sd3(heads: int, layers: int, positions: int, dual: int, *, tiny: bool = False) -> dict:
    head, (first, second, joint) = (16, (24, 40, 64)) if tiny else (64, (768, 1280, 4096))
    network = {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": layers,
        "attention_head_dim": head,
        "num_attention_heads": heads,
        "joint_attention_dim": joint,
        "caption_projection_dim": head * heads,
        "pooled_projection_dim": first + second,
        "pos_embed_max_size": positions,
        "dual_attention_layers": list(range(dual)),
        "qk_norm": "rms_norm",
    }
    clips = [_clip(first, 12, first // 8 if tiny else 12), _clip(second, 32, second // 8 if tiny else 20)]
    return _model("StableDiffusion3Pipeline", network, _vae(tiny, **SD3_LATENTS), [*clips, _t5(joint)])


def _z_image(text: int, *, tiny: bool = False, **network) -> dict:
    network = {"_class_name": "ZImageTransformer2DModel", "axes_lens": [1536, 512, 512], "cap_feat_dim": text} | network
    return _model("ZImagePipeline", network, _vae(tiny, **FLUX_LATENTS), [_qwen(text, 9728, "Qwen3Model")])


def _flux2(heads: int, text: int, layers: int, singles: int) -> dict:
    return {
        "_class_name": "Flux2Transformer2DModel",
        "patch_size": 1,
        "in_channels": 128,
        "num_layers": layers,
        "num_single_layers": singles,
        "attention_head_dim": 128,
        "num_attention_heads": heads,
        "joint_attention_dim": 3 * text,
        "axes_dims_rope": [32, 32, 32, 32],
        "guidance_embeds": False,
    }


def _klein(heads: int, text: int, inner: int, layers: int, singles: int) -> dict:
    encoder, network = _qwen(text, inner, "Qwen3ForCausalLM"), _flux2(heads, text, layers, singles)
    return _model("Flux2KleinPipeline", network, FLUX2_VAE, [encoder], distilled=True, is_distilled=True)


FLUX1 = _model(
    "FluxPipeline",
    {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True},
    _vae(**FLUX_LATENTS),
    [_clip(768, 12, 12) | {"architectures": ["CLIPTextModel"]}, _t5(4096)],
    distilled=True,
)
FLUX2_DEV = _model(
    "Flux2Pipeline",
    _flux2(48, 5120, 8, 48) | {"guidance_embeds": True},
    FLUX2_VAE,
    [_mistral()],
    distilled=True,
)
QWEN_IMAGE = _model(
    "QwenImagePipeline",
    {"_class_name": "QwenImageTransformer2DModel"},
    {"_class_name": "AutoencoderKLQwenImage"},
    [_qwen_vl()],
)


MODELS = {
    "SD3.5 Medium": _sd3(24, 24, 384, 13),
    "SD3.5 Large": _sd3(38, 38, 192, 0),
    "Z-Image": _z_image(2560),
    "FLUX.2 klein 4B": _klein(24, 2560, 9728, 5, 20),
    "FLUX.2 klein 9B": _klein(32, 4096, 12288, 8, 24),
    "FLUX.1 dev": FLUX1,
    "FLUX.2 dev": FLUX2_DEV,
    "Qwen-Image": QWEN_IMAGE,
}
TINY = {  # the same of next to no size, for rehearsals
    "SD3.5 Medium": _sd3(2, 2, 384, 1, tiny=True),
    "Z-Image": _z_image(
        16, tiny=True, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, axes_dims=[4, 6, 6]
    ),
}


def write(name: str, folder: Path, size: int, *, shallow: bool = False, tiny: bool = False) -> Path:
    """The folder of one of `MODELS` (`TINY`) that makes images of `size` pixels, with `shallow` text encoders for what
    needs none; returns it."""
    model = (TINY if tiny else MODELS)[name]
    index = {"_class_name": model["pipeline"], "_diffusers_version": "0.42.0"} | model["index"]
    network, vae = model["network"], model["vae"]
    _part(folder / "transformer", network, "diffusion_pytorch_model")
    _part(folder / "vae", vae, "diffusion_pytorch_model")
    index |= {"transformer": ["diffusers", network["_class_name"]], "vae": ["diffusers", vae["_class_name"]]}
    dynamic = model["pipeline"].startswith("Flux")
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic).save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    for i, encoder in enumerate(model["encoders"], 1):
        ending, kind = "" if i == 1 else f"_{i}", encoder["model_type"]
        if shallow or tiny:
            encoder = encoder | {"vocab_size": len(vocabulary())} | SHALLOW[kind]
        _part(folder / f"text_encoder{ending}", encoder, "model")
        tokenizer = _tokenizer(kind, long=model["pipeline"] == "FluxPipeline")
        tokenizer.save_pretrained(folder / f"tokenizer{ending}")
        index |= {
            f"text_encoder{ending}": ["transformers", encoder["architectures"][0]],
            f"tokenizer{ending}": ["transformers", type(tokenizer).__name__],
        }
    if model["pipeline"] in ("StableDiffusion3Pipeline", "FluxPipeline"):
        index |= {"image_encoder": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "likestep.json").write_text(json.dumps({"size": size}))
    return folder


def _part(folder: Path, config: dict, weights: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / f"{weights}.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")  # a whole file of no tensors


def _tokenizer(kind: str, *, long: bool) -> PreTrainedTokenizerFast:
    """For a text encoder of this kind; FLUX.1's T5 reads twice as much (`long`)."""
    if kind in ("clip_text_model", "t5"):
        return build_tokenizer(CLIP_TOKENS if kind == "clip_text_model" else (1 + long) * T5_TOKENS)
    tokenizer = build_tokenizer(CHAT_TOKENS, ends=False)
    tokenizer.chat_template = CHAT
    return tokenizer
