"""Folders of models that have a real model's shapes and no weights, and backends of them with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from common.files import write_json
from common.settings import MemorySettings
from trainer.backends import Conditioning, Managed, load_backend
from trainer.backends.memory import EmbeddingFolder, encoders_identity
from trainer.demo.model import build_tokenizer, vocabulary

CLIP_TOKENS, T5_TOKENS, CHAT_TOKENS = 77, 256, 64  # of a prompt
CHAT = "{% for message in messages %}{{ message.content }} {% endfor %}"
MODELS = ("sd35", "z_image")
PROMPTS = tuple(f"{count} {color} stars" for count in ("two", "three") for color in ("red", "blue", "green", "black"))


def write_model(name: str, folder: Path, *, tiny: bool, size: int) -> Path:
    """The folder of a model of `MODELS` for images of `size` pixels: real configurations of transformer and VAE, text
    encoders of the real widths and next to no depth, and weight files that hold nothing. `tiny` shrinks all of it."""
    with torch.device("meta"):
        pipeline = {"sd35": _sd35, "z_image": _z_image}[name](tiny)
    for part, component in pipeline.components.items():
        if component is None:
            continue
        if not isinstance(component, torch.nn.Module):
            component.save_pretrained(folder / part)
            continue
        (folder / part).mkdir(parents=True)
        of_diffusers = hasattr(component, "save_config")
        component.save_config(folder / part) if of_diffusers else component.config.save_pretrained(folder / part)
        stem = "diffusion_pytorch_model" if of_diffusers else "model"
        save_file({}, folder / part / f"{stem}.safetensors")
    pipeline.save_config(folder)
    write_json(folder / "likestep.json", {"size": size})
    return folder


def random_backend(folder: Path, memory: MemorySettings, device: torch.device) -> Managed:
    """A model of `write_model` with random weights, made on the device; the settings must name a folder of embeddings, into
    which those of `PROMPTS` and "" are put."""
    backend = load_backend(folder, device=str(device), memory=memory, shapes=device)
    kept = EmbeddingFolder(Path(memory.embeddings), encoders_identity(folder, memory))
    generator = torch.Generator().manual_seed(0)
    for prompt in ("", *PROMPTS):
        kept.write(prompt, _embedding(backend, generator))
    return backend


def _embedding(backend: Managed, generator: torch.Generator) -> Conditioning:
    """Of one prompt, as the family's `encode` gives it."""
    config = backend.transformer.config
    if isinstance(backend.transformer, SD3Transformer2DModel):
        embeds = torch.randn((1, CLIP_TOKENS + T5_TOKENS, config.joint_attention_dim), generator=generator)
        return Conditioning(embeds, torch.randn((1, config.pooled_projection_dim), generator=generator))
    embeds = torch.randn((1, CHAT_TOKENS, config.cap_feat_dim), generator=generator)
    return Conditioning(embeds, torch.zeros(1, 0), torch.tensor([CHAT_TOKENS]))


def _vae(tiny: bool, **config) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8) if tiny else (128, 256, 512, 512),
        layers_per_block=1 if tiny else 2,
        latent_channels=16,
        norm_num_groups=2 if tiny else 32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **config,
    )


def _clip(width: int, heads: int) -> CLIPTextModelWithProjection:
    tokens = vocabulary()
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=heads,
            max_position_embeddings=CLIP_TOKENS,
            projection_dim=width,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def _chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer(512, ends=False)
    tokenizer.chat_template = CHAT
    return tokenizer


def _sd35(tiny: bool) -> StableDiffusion3Pipeline:
    widths, joint = ((24, 40), 64) if tiny else ((768, 1280), 4096)
    layers, heads, head_dim = (2, 2, 16) if tiny else (24, 24, 64)
    t5 = T5Config(vocab_size=len(vocabulary()), d_model=joint, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=layers,
            attention_head_dim=head_dim,
            num_attention_heads=heads,
            joint_attention_dim=joint,
            caption_projection_dim=heads * head_dim,
            pooled_projection_dim=sum(widths),
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(min(layers - 1, 13))),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(tiny, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=_clip(widths[0], widths[0] // 8 if tiny else 12),
        tokenizer=build_tokenizer(CLIP_TOKENS),
        text_encoder_2=_clip(widths[1], widths[1] // 8 if tiny else 20),
        tokenizer_2=build_tokenizer(CLIP_TOKENS),
        text_encoder_3=T5EncoderModel(t5),
        tokenizer_3=build_tokenizer(T5_TOKENS),
    )


def _z_image(tiny: bool) -> ZImagePipeline:
    width, heads = (32, 2) if tiny else (3840, 30)
    text = 16 if tiny else 2560
    qwen = Qwen3Config(
        vocab_size=len(vocabulary()),
        hidden_size=text,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        use_cache=False,
    )
    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(
            all_patch_size=(2,),
            all_f_patch_size=(1,),
            in_channels=16,
            dim=width,
            n_layers=2 if tiny else 30,
            n_refiner_layers=1 if tiny else 2,
            n_heads=heads,
            n_kv_heads=heads,
            norm_eps=1e-5,
            qk_norm=True,
            cap_feat_dim=text,
            rope_theta=256.0,
            t_scale=1000.0,
            axes_dims=[4, 6, 6] if tiny else [32, 48, 48],
            axes_lens=[1536, 512, 512],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False),
        vae=_vae(tiny, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(qwen),
        tokenizer=_chat_tokenizer(),
    )
