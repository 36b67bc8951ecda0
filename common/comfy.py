"""A one-file workflow with which ComfyUI draws what a version draws. Standard library only.

It is in ComfyUI's API format, which its page also opens: node number → class and inputs, where [number, k] is the k-th
output of another node.
"""

from __future__ import annotations

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
        kind = "ModelSamplingAuraFlow" if base.pipeline == "ZImagePipeline" else "ModelSamplingSD3"
        nodes["11"] = _node(kind, model=shifted, shift=base.shift)
        shifted = ["11", 0]
    latent = "EmptyLatentImage" if base.pipeline == "StableDiffusionXLPipeline" else "EmptySD3LatentImage"
    size = base.size or base.pixels
    nodes["12"] = _node("CLIPTextEncode", clip=clip, text=prompt)
    nodes["13"] = _node("CLIPTextEncode", clip=clip, text=NEGATIVE)
    nodes["14"] = _node(latent, width=size, height=size, batch_size=1)
    nodes["15"] = _node(
        "KSampler",
        model=shifted,
        positive=["12", 0],
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


def _parts(name: str) -> tuple[dict, list, list, list]:
    nodes = {
        "1": _node("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default"),
        "2": _node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2"),
        "3": _node("VAELoader", vae_name="ae.safetensors"),
    }
    return nodes, ["1", 0], ["2", 0], ["3", 0]


# How each pipeline's model is loaded: nodes, and where model, text encoders and VAE come from.
_MODELS = {
    "StableDiffusion3Pipeline": _checkpoint,
    "StableDiffusionXLPipeline": _checkpoint,
    "ZImagePipeline": _parts,
}
