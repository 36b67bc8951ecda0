"""A one-file workflow with which ComfyUI draws what a version draws. Standard library only.

It is in ComfyUI's API format, which its page also opens: node number → class and inputs, where [number, k] is the k-th
output of another node.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from common.cards import EXAMPLE, LORA_NAME, Base

WORKFLOW_NAME = "comfyui-workflow.json"
NEGATIVE = ""  # at CFG 1 it is not looked at


def workflow(base: Base, *, lora: str = LORA_NAME, steps: int = 4, prompt: str = EXAMPLE) -> dict | None:
    """Model, LoRA at strength 1, sampler and shift as the version was trained for; None for a family that has none here.
    Names of the model's own files are guesses that the page lets people change."""
    if base.pipeline not in _MODELS:
        return None
    nodes, model, clip, vae = _MODELS[base.pipeline](base.name.rpartition("/")[2])
    nodes["10"] = _node("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=1.0)
    shifted = ["10", 0]
    if base.flow and base.shift:
        nodes["11"] = _shift(base, shifted)
        shifted = ["11", 0]
    latent = "EmptyLatentImage" if base.pipeline == "StableDiffusionXLPipeline" else "EmptySD3LatentImage"
    size = base.size or base.pixels
    nodes["12"] = _node("CLIPTextEncode", clip=clip, text=prompt)
    nodes["13"] = _node("CLIPTextEncode", clip=clip, text=NEGATIVE)
    wanted = ["12", 0]
    if base.guidance is not None:
        nodes["18"] = _node("FluxGuidance", conditioning=wanted, guidance=base.guidance)
        wanted = ["18", 0]
    nodes["14"] = _node(latent, width=size, height=size, batch_size=1)
    nodes["15"] = _node(
        "KSampler",
        model=shifted,
        positive=wanted,
        negative=["13", 0],
        latent_image=["14", 0],
        seed=0,
        steps=steps,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple" if base.flow else "sgm_uniform",
        denoise=1.0,
    )
    nodes["16"] = _node("VAEDecode", samples=["15", 0], vae=vae)
    nodes["17"] = _node("SaveImage", images=["16", 0], filename_prefix="likestep")
    return nodes


def _node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def _checkpoint(name: str) -> tuple[dict, list, list, list]:
    nodes = {"1": _node("CheckpointLoaderSimple", ckpt_name=f"{name}.safetensors")}
    return nodes, ["1", 0], ["1", 1], ["1", 2]


def _parts(encoders: dict, vae: str) -> Callable[[str], tuple[dict, list, list, list]]:
    def nodes(name: str) -> tuple[dict, list, list, list]:
        loaders = {
            "1": _node("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default"),
            "2": encoders,
            "3": _node("VAELoader", vae_name=vae),
        }
        return loaders, ["1", 0], ["2", 0], ["3", 0]

    return nodes


def _shift(base: Base, model: list) -> dict:
    """FLUX.1's node takes the shift's logarithm, at two sizes; given twice, it is the same at all."""
    if base.pipeline == "FluxPipeline":
        size, mu = base.size or base.pixels, math.log(base.shift)
        return _node("ModelSamplingFlux", model=model, max_shift=mu, base_shift=mu, width=size, height=size)
    unscaled = base.pipeline in ("ZImagePipeline", "QwenImagePipeline")  # networks whose times go to 1, not to 1000
    return _node("ModelSamplingAuraFlow" if unscaled else "ModelSamplingSD3", model=model, shift=base.shift)


# How each pipeline's model is loaded: nodes, and where model, text encoders and VAE come from.
_MODELS = {
    "StableDiffusion3Pipeline": _checkpoint,
    "StableDiffusionXLPipeline": _checkpoint,
    "ZImagePipeline": _parts(_node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2"), "ae.safetensors"),
    "FluxPipeline": _parts(
        _node("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux"),
        "ae.safetensors",
    ),
    "QwenImagePipeline": _parts(
        _node("CLIPLoader", clip_name="qwen_2.5_vl_7b.safetensors", type="qwen_image"), "qwen_image_vae.safetensors"
    ),
}
