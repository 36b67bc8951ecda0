"""Tiny random pipelines of the supported families: the real ones' classes and config keys.

A new backend joins the conformance suite with one line in `CASES`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, Qwen3ForCausalLM, Qwen3Model

from tests.trainer.backends.encoders import (
    clip,
    clip_tokenizer,
    mistral,
    qwen,
    qwen_tokenizer,
    qwen_vl,
    t5,
    t5_tokenizer,
)
from trainer.backends import backend_class
from trainer.backends.memory import ENCODERS_SENSITIVE
from trainer.backends.quantised import QuantisedLinear, quantise

SIZE = 64  # pixels of a side


def autoencoder(kind=AutoencoderKL, *, channels: int = 4, **config):
    """An 8× autoencoder."""
    return kind(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        **config,
    )


def deep(folder: Path) -> Path:
    """`sd35` with blocks that repeat, of two kinds."""
    return sd35(folder, layers=9, dual=4)


def sd35(folder: Path, *, layers: int = 3, dual: int = 2) -> Path:
    """Stable Diffusion 3.5 Medium: two CLIPs and a T5, a second attention in the first blocks."""
    return save(
        StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=SIZE // 8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=layers,
                num_attention_heads=2,
                attention_head_dim=16,
                joint_attention_dim=48,
                caption_projection_dim=32,
                pooled_projection_dim=40,
                pos_embed_max_size=12,
                dual_attention_layers=tuple(range(dual)),
                qk_norm="rms_norm",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(
                scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
            ),
            text_encoder=clip(CLIPTextModelWithProjection, 16),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip(CLIPTextModelWithProjection, 24),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5(48),
            tokenizer_3=t5_tokenizer(),
        ),
        folder,
    )


def z_image(folder: Path) -> Path:
    """Z-Image and Z-Image-Turbo."""
    return save(
        ZImagePipeline(
            transformer=ZImageTransformer2DModel(
                all_patch_size=(2,),
                all_f_patch_size=(1,),
                in_channels=4,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                norm_eps=1e-5,
                qk_norm=True,
                cap_feat_dim=16,
                rope_theta=256.0,
                t_scale=1000.0,
                axes_dims=[4, 6, 6],
                axes_lens=[256, 32, 32],
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False),
            vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=qwen(Qwen3Model, 16, 3),
            tokenizer=qwen_tokenizer(),
        ),
        folder,
        size=SIZE,
    )


def flux2_klein(folder: Path, *, distilled: bool = False) -> Path:
    """FLUX.2 klein; its text comes from layers 9, 18 and 27."""
    parts = flux2_parts(guidance=False)
    text = {"text_encoder": qwen(Qwen3ForCausalLM, 8, 28), "tokenizer": qwen_tokenizer()}
    return save(Flux2KleinPipeline(**parts, **text, is_distilled=distilled), folder, size=SIZE)


def flux2_dev(folder: Path) -> Path:
    """FLUX.2 dev; its text comes from layers 10, 20 and 30, and 128 tokens are read here, so that a pass is short. Where
    the real folder has Pixtral's processor, this one has a tokenizer, which does as much with text."""
    encoder, tokenizer = mistral(8, 128)
    parts = flux2_parts(guidance=True)
    return save(Flux2Pipeline(**parts, text_encoder=encoder, tokenizer=tokenizer), folder, size=SIZE)


def flux2_parts(*, guidance: bool) -> dict:
    """What klein and dev have in common."""
    vae = autoencoder(AutoencoderKLFlux2, batch_norm_eps=1e-4, patch_size=(2, 2))
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        mlp_ratio=3.0,
        axes_dims_rope=(4, 4, 4, 4),
        rope_theta=2000,
        guidance_embeds=guidance,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        time_shift_type="exponential",
    )
    return {"transformer": transformer, "scheduler": scheduler, "vae": vae}


def sdxl(folder: Path, **scheduler) -> Path:
    """SDXL Lightning: a UNet that predicts the noise of a DDPM, sampled deterministically at trailing times."""
    options = {"timestep_spacing": "trailing", "prediction_type": "epsilon"} | scheduler
    return save(
        StableDiffusionXLPipeline(
            unet=UNet2DConditionModel(
                sample_size=SIZE // 8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(16, 32),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                norm_num_groups=8,
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                transformer_layers_per_block=(1, 2),
                cross_attention_dim=40,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 24,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, **options
            ),
            vae=autoencoder(scaling_factor=0.13025),
            text_encoder=clip(CLIPTextModel, 16),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip(CLIPTextModelWithProjection, 24),
            tokenizer_2=clip_tokenizer(),
            force_zeros_for_empty_prompt=True,
        ),
        folder,
    )


def flux1(folder: Path, *, schnell: bool = False) -> Path:
    """FLUX.1 dev, or schnell; T5 reads 64 tokens here, so that a pass is short."""
    dynamic = {"use_dynamic_shifting": True, "shift": 3.0} if not schnell else {"shift": 1.0}
    return save(
        FluxPipeline(
            transformer=FluxTransformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                pooled_projection_dim=16,
                guidance_embeds=not schnell,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(**dynamic),
            vae=autoencoder(
                scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
            ),
            text_encoder=clip(CLIPTextModel, 16),
            tokenizer=clip_tokenizer(),
            text_encoder_2=t5(24),
            tokenizer_2=t5_tokenizer(64),
        ),
        folder,
        size=SIZE,
    )


def qwen_image(folder: Path, **scheduler) -> Path:
    """Qwen-Image with Lightning's times."""
    encoder, tokenizer = qwen_vl(16)
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[-0.7, 0.5, 0.1, -0.2],
        latents_std=[2.8, 1.5, 2.0, 2.4],
    )
    few = {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None}
    return save(
        QwenImagePipeline(
            transformer=QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=3,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=8192, **few | scheduler
            ),
            vae=vae,
            text_encoder=encoder,
            tokenizer=tokenizer,
        ),
        folder,
        size=SIZE,
    )


def save(pipeline, folder: Path, **options) -> Path:
    """Write the folder; what a fresh network starts at zero becomes random, so that its output depends on everything."""
    network = getattr(pipeline, "transformer", None) or pipeline.unet
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.normal_(std=0.02)
        pipeline.vae.decoder.conv_out.weight.mul_(10)  # images of random latents that can be told apart
    pipeline.save_pretrained(folder)
    if options:
        (folder / "likestep.json").write_text(json.dumps(options))
    return folder


def decoded(folder: Path, kind: str, target: Path) -> Path:
    """A copy of a pipeline folder whose weights are what their codes of this kind stand for. Coded again they are the same,
    so that a stock pipeline of the copy computes what a backend with `weights` of this kind does."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    own = backend_class(folder)
    for name, part in pipeline.components.items():
        if name != own.component and not name.startswith("text_encoder"):
            continue
        if part is not None:
            quantise(part, kind, own.sensitive if name == own.component else ENCODERS_SENSITIVE, torch.device("cpu"))
            for layer, module in list(part.named_modules()):
                if isinstance(module, QuantisedLinear):
                    plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
                    plain.weight.data, plain.bias = module.weight, module.bias
                    part.set_submodule(layer, plain)
            part.save_pretrained(target / name)
    return target


def training(backend) -> dict:
    """Settings that a distilled model asks for."""
    return {"guidance": 1, "rl_cfg": 1} if backend.distilled else {}


def as_they_are(latents: torch.Tensor, backend, level: float) -> torch.Tensor:
    """The stock pipeline walks the same points as the trainer."""
    return latents


def patched(latents: torch.Tensor, backend, level: float) -> torch.Tensor:
    """The stock pipeline keeps a row a 2 × 2 patch."""
    return backend.unpack(latents)


def in_patches(noise: torch.Tensor, backend) -> torch.Tensor:
    """The inverse of `patched`."""
    return backend.pack(noise)


def unpacked(latents: torch.Tensor, backend, level: float) -> torch.Tensor:
    """The stock pipeline keeps a row a token."""
    return latents.transpose(1, 2).unflatten(2, backend.latent_shape[1:])


def from_sigma(latents: torch.Tensor, backend, level: float) -> torch.Tensor:
    """The stock pipeline walks x0 + sigma·eps, with sigma = level/(1 - level)."""
    return latents * (1 - level)


@dataclass(frozen=True)
class Case:
    """A family: how to build it, how many modules of its tiny network get LoRA, how its stock pipeline's points translate
    into the trainer's, and how the trainer's noise translates into what it takes as `latents`."""

    build: Callable[[Path], Path]
    lora_modules: int
    point: Callable = as_they_are
    guided: bool = True  # whether the stock pipeline can be, beside the guidance that a network may embed
    start: Callable = lambda noise, backend: noise.clone()  # Z-Image's writes into the list that it is given

    def call(self, backend, noise: torch.Tensor, guidance: float = 1.0) -> dict:
        """The stock pipeline's arguments for four steps from this noise, a prompt an image."""
        call = backend.stock_call(4, guidance) | {"latents": self.start(noise, backend)}
        return call | ({"negative_prompt": [""] * len(noise)} if "negative_prompt" in call else {})


CASES = {
    "sd35": Case(sd35, 23 + 17),  # attention, and the other linear layers since the model is small
    "z_image": Case(z_image, 4 * 4),
    "flux2_klein": Case(flux2_klein, 8 + 2 * 2, unpacked),
    "sdxl": Case(sdxl, 8 * 8, from_sigma),
    "flux1": Case(flux1, 8 + 2 * 4, patched, start=in_patches),
    "flux2_dev": Case(flux2_dev, 8 + 2 * 2, unpacked, guided=False),
    "qwen_image": Case(qwen_image, 2 * 8 + 6, patched, start=in_patches),
}
