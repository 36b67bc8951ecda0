"""Tiny random text encoders and tokenizers, of the kinds and lengths that the families' real ones have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from common import reading

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% set text = message.content[0].text %}{% if message.role == 'system' %}"
    "[SYSTEM_PROMPT]{{ text }}[/SYSTEM_PROMPT]{% else %}[INST]{{ text }}[/INST]{% endif %}{% endfor %}"
)


def clip_tokenizer() -> CLIPTokenizer:
    """77 tokens; every byte a token, with and without the end of a word."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = [*BYTES, *(b + "</w>" for b in BYTES), start, end]
    return CLIPTokenizer({t: i for i, t in enumerate(vocabulary)}, [], pad_token=end, model_max_length=77)


def t5_tokenizer(most: int = 512) -> T5Tokenizer:
    """So many tokens at most; every letter a token."""
    letters = [chr(c) for c in range(32, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in letters)]
    return T5Tokenizer(vocabulary, extra_ids=0, model_max_length=most)


def qwen_tokenizer(words: Sequence[str] = ()) -> Qwen2Tokenizer:
    """Every byte a token, and each of the `words`, with the chat's special tokens and a template of the same form."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {t: i for i, t in enumerate([*BYTES, *special])}
    made = Qwen2Tokenizer(
        vocabulary,
        [],
        additional_special_tokens=special[1:],
        chat_template=CHAT,
        model_max_length=131072,
        padding_side="right",
    )
    made.add_tokens([AddedToken(word, normalized=False) for word in words])
    return made


def clip(kind, width: int):
    """A CLIP text encoder for `clip_tokenizer`."""
    end = 2 * len(BYTES) + 1
    return kind(
        CLIPTextConfig(
            vocab_size=end + 1,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=width,
            hidden_act="gelu",
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def t5(width: int) -> T5EncoderModel:
    """A T5 encoder for `t5_tokenizer`."""
    return T5EncoderModel(T5Config(vocab_size=128, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def qwen(kind, width: int, layers: int):
    """A Qwen3 text encoder for `qwen_tokenizer`."""
    return kind(
        Qwen3Config(
            vocab_size=len(BYTES) + 3,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=width // 2,
            max_position_embeddings=1024,
            use_cache=False,
        )
    )


def qwen_vl(width: int) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer]:
    """Qwen-Image's encoder and tokenizer. Each word of its chat's first part is a token, so that it has 34 as in the real
    one."""
    words = re.findall(r" ?\w+|:", reading.QWEN_SYSTEM.removeprefix("<|im_start|>").partition("<")[0])
    tokenizer = qwen_tokenizer(list(dict.fromkeys([*words, "user", "assistant"])))
    text = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_hidden_layers": 2}
    text |= {"num_key_value_heads": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    text |= {"use_cache": False, "bos_token_id": None, "eos_token_id": None}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": width}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config), tokenizer


def mistral(width: int, most: int) -> tuple[Mistral3ForConditionalGeneration, PreTrainedTokenizerFast]:
    """FLUX.2 dev's encoder, and a tokenizer of so many tokens; words of its chat's first part are tokens. Where the real
    folder has Pixtral's processor, this is a tokenizer, which does as much with text."""
    words = re.findall(r" ?\w+", reading.FLUX2_SYSTEM.partition("]")[2].partition("[")[0])
    special = ["<unk>", "<s>", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"]
    plain = Tokenizer(models.BPE({t: i for i, t in enumerate([*BYTES, *special])}, []))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    plain.add_special_tokens(special)
    plain.add_tokens([AddedToken(word, normalized=False) for word in dict.fromkeys(words)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=MISTRAL_CHAT,
        model_max_length=most,
        padding_side="left",
    )
    text = {"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 31}
    text |= {"model_type": "mistral", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": width // 2}
    text |= {"max_position_embeddings": 1024, "use_cache": False}
    vision = {"model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "head_dim": 4, "image_size": 28, "patch_size": 14}
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)), tokenizer
