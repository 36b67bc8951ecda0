"""How much of a prompt a model's text encoders read, by the tokenizers in its folder. Without torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

log = logging.getLogger(__name__)
SPARE = 8  # tokens beside the prompt's own, at most; a chat's words count as they are
CHAT = "<|im_start|>user\n"  # Qwen's template before a prompt
QWEN_SYSTEM = (  # the same of Qwen-Image, 34 tokens
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
FLUX2_SYSTEM = (  # of FLUX.2 dev
    "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on "
    "object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]"
)


@dataclass(frozen=True)
class Window:
    """What the pipeline lets one tokenizer read: `most` tokens, of which `before` takes the first."""

    folder: str
    most: int
    before: str = ""


# As diffusers' pipelines call their tokenizers, by the pipeline's class. The first reads the most.
WINDOWS = {
    "StableDiffusion3Pipeline": (Window("tokenizer_3", 256), Window("tokenizer_2", 77), Window("tokenizer", 77)),
    "StableDiffusionXLPipeline": (Window("tokenizer_2", 77), Window("tokenizer", 77)),
    "ZImagePipeline": (Window("tokenizer", 512, CHAT),),
    "Flux2KleinPipeline": (Window("tokenizer", 512, CHAT),),
    "FluxPipeline": (Window("tokenizer_2", 512), Window("tokenizer", 77)),
    "Flux2Pipeline": (Window("tokenizer", 512, FLUX2_SYSTEM),),
    "QwenImagePipeline": (Window("tokenizer", 34 + 512, QWEN_SYSTEM),),
}


def unread(folder: Path | str, prompts: Sequence[str]) -> list[str]:
    """Of each prompt the end that no text encoder of the pipeline in `folder` reads; "" where all of it is read, and
    everywhere when that cannot be said: an unknown family, a folder that is not here, a tokenizer that cannot be read."""
    try:
        windows = [_within(Path(folder), window) for window in _windows(Path(folder))]
        if not windows or max(map(_surely, windows)) >= max((len(p.encode()) for p in prompts), default=0):
            return [""] * len(prompts)
        readers = [(window, _tokenizer(Path(folder, window.folder))) for window in windows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: the length of prompts is not checked (%s)", folder, error)
        return [""] * len(prompts)
    return [_rest(prompt, readers) for prompt in prompts]


def _windows(folder: Path) -> list[Window]:
    """Those of the pipeline's tokenizers; none where the folder is not here or of another family."""
    if not (index := folder / "model_index.json").is_file():
        return []
    parts = json.loads(index.read_text())
    found = WINDOWS.get(parts["_class_name"], ())
    if parts["_class_name"] == "FluxPipeline" and not _takes_guidance(folder):
        found = (Window("tokenizer_2", 256), *found[1:])  # schnell
    return [window for window in found if (parts.get(window.folder) or [None])[0] is not None]


def _takes_guidance(folder: Path) -> bool:
    return bool(json.loads((folder / "transformer" / "config.json").read_text()).get("guidance_embeds"))


def _within(folder: Path, window: Window) -> Window:
    """A tokenizer may read less than its pipeline allows."""
    most = json.loads((folder / window.folder / "tokenizer_config.json").read_text()).get("model_max_length")
    return Window(window.folder, min(window.most, int(most or window.most)), window.before)


def _surely(window: Window) -> int:
    """Bytes of UTF-8 that are read without a look, since a token is a byte at least."""
    return window.most - SPARE - len(window.before)


def _rest(prompt: str, readers: list[tuple[Window, Tokenizer]]) -> str:
    if max(_surely(window) for window, _tokenizer in readers) >= len(prompt.encode()):
        return ""
    read = 0
    for window, tokenizer in readers:
        found = tokenizer.encode(window.before + prompt, add_special_tokens=not window.before)
        own = [
            end for (_start, end), special in zip(found.offsets, found.special_tokens_mask, strict=True) if not special
        ]
        room = window.most - sum(found.special_tokens_mask)
        if len(own) <= room:
            return ""
        read = max(read, own[room - 1] - len(window.before) if room > 0 else 0)
    return prompt[read:].strip()


@lru_cache(maxsize=6)
def _tokenizer(folder: Path) -> Tokenizer:
    """A folder's tokenizer, which cuts and fills nothing. Raises ValueError when it cannot be read."""
    try:
        whole = folder / "tokenizer.json"
        made = Tokenizer.from_file(str(whole)) if whole.is_file() else _clip(folder)
    except Exception as error:  # the library raises nothing else
        raise ValueError(f"{folder.name}: {error}") from error
    made.no_truncation()
    made.no_padding()
    return made


def _clip(folder: Path) -> Tokenizer:
    """CLIP's tokenizer of `vocab.json` and `merges.txt`, as older folders have it."""
    made = Tokenizer(
        models.BPE.from_file(
            str(folder / "vocab.json"),
            str(folder / "merges.txt"),
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",  # noqa: S106 - a word of the vocabulary
        )
    )
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    made.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    ends = [(word, made.token_to_id(word)) for word in ("<|startoftext|>", "<|endoftext|>")]
    single = f"{ends[0][0]} $A {ends[1][0]}"
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return made
