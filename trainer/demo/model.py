"""The demo model: a real StableDiffusion3Pipeline of tiny parts, and the tokenizer whose vocabulary is the demo world's.

Stock SD3 pipelines load from a folder only with a T5 in its place, so there is one: a single layer whose output is
exactly zero, which is what diffusers itself puts where T5 is missing. The model is trained with one such token
(`max_sequence_length=1`, also the third tokenizer's `model_max_length`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from trainer.demo.scenes.world import COLORS, NUMBERS, PLURALS, RELATIONS

MAX_TOKENS = 12
T5_TOKENS = 1
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"


@dataclass(frozen=True)
class DemoModelSettings:
    """The tiny parts' shapes; the defaults are what ships."""

    layers: int = 6
    heads: int = 6
    head_dim: int = 32
    text_width: int = 128
    text_layers: int = 3
    second_text_width: int = 32
    shift: float = 3.0


def vocabulary() -> list[str]:
    """Every token: the special four, the grammar's words in lower case, capital letters one by one, quotes, digits."""
    words = [
        "a",
        "an",
        "and",
        "of",
        "the",
        "one",
        "just",
        "single",
        "photo",
        "drawing",
        "picture",
        "image",
        "word",
        "with",
    ]
    words += [w for relation in RELATIONS for w in relation.split()]
    words += [*PLURALS, *PLURALS.values(), *COLORS, *NUMBERS.values()]
    letters = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", '"', *"0123456789"]
    return list(dict.fromkeys([PAD, BOS, EOS, UNK, *words, *letters]))


def build_tokenizer(max_length: int = MAX_TOKENS, *, ends: bool = True) -> PreTrainedTokenizerFast:
    """Words in lower case are one token each; capital letters, digits and quotes are always tokens of their own.
    With `ends`, a prompt is put between <bos> and <eos>."""
    tokens = vocabulary()
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r'[A-Z0-9"]|[^A-Z0-9"]+'), "isolated")]
    )
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=[(BOS, tokens.index(BOS)), (EOS, tokens.index(EOS))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
    )


def _text_encoder(width: int, layers: int) -> CLIPTextModelWithProjection:
    tokens = vocabulary()
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=width,
            hidden_act="gelu",
            bos_token_id=tokens.index(BOS),
            eos_token_id=tokens.index(EOS),
            pad_token_id=tokens.index(PAD),
        )
    )


def _silent_t5(width: int) -> T5EncoderModel:
    config = T5Config(vocab_size=len(vocabulary()), d_model=width, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    encoder = T5EncoderModel(config)
    torch.nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return encoder.requires_grad_(False)


def build_pipeline(vae: AutoencoderKL, settings: DemoModelSettings, *, seed: int = 0) -> StableDiffusion3Pipeline:
    """A pipeline with random weights around a trained autoencoder."""
    torch.manual_seed(seed)
    joint = settings.text_width + settings.second_text_width
    width = settings.heads * settings.head_dim
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        num_layers=settings.layers,
        num_attention_heads=settings.heads,
        attention_head_dim=settings.head_dim,
        joint_attention_dim=joint,
        caption_projection_dim=width,
        pooled_projection_dim=joint,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=settings.shift),
        vae=vae,
        text_encoder=_text_encoder(settings.text_width, settings.text_layers),
        tokenizer=build_tokenizer(),
        text_encoder_2=_text_encoder(settings.second_text_width, 2),
        tokenizer_2=build_tokenizer(),
        text_encoder_3=_silent_t5(joint),
        tokenizer_3=build_tokenizer(T5_TOKENS, ends=False),
    )


def tokenize(pipeline: StableDiffusion3Pipeline, prompts: list[str]) -> torch.Tensor:
    """Token ids, (B, MAX_TOKENS) int64; both encoders share the vocabulary."""
    return pipeline.tokenizer(
        prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def encode_text(
    pipeline: StableDiffusion3Pipeline, tokens: torch.Tensor, *, t5_tokens: int = T5_TOKENS
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T + t5_tokens, joint) embeddings and (B, joint) pooled: what the stock pipeline's encode_prompt gives with
    `max_sequence_length=t5_tokens`, but differentiable and from token ids, so that the encoders can be trained."""
    outputs = [e(tokens, output_hidden_states=True) for e in (pipeline.text_encoder, pipeline.text_encoder_2)]
    embeds = torch.cat([o.hidden_states[-2] for o in outputs], -1)
    return torch.nn.functional.pad(embeds, (0, 0, 0, t5_tokens)), torch.cat([o[0] for o in outputs], -1)
