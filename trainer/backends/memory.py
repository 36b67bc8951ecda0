"""What keeps a model within a machine's memory, around any backend: which parts are where, in what precision, and how much
of a batch they take at once. `common.settings.MemorySettings` explains each option."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from accelerate.utils import broadcast_object_list
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from common.files import write_atomic
from common.settings import MemorySettings
from trainer.backends.base import Backend, Conditioning, autocast, kind_of
from trainer.backends.cpu import PlainAttention, rewrite
from trainer.backends.folders import check_folder, check_part, listed_parts, parts_gone_without
from trainer.backends.processors import text_alone
from trainer.backends.quantised import quantise
from trainer.backends.sharded import divided, encoder_blocks, shard, world
from trainer.backends.streaming import Streamed
from trainer.finite import first_not_finite
from trainer.prompts import Instruction, input_size

ENCODE_BATCH = 16  # prompts, on a GPU
REMEMBERED_BYTES = 2**30  # of embeddings that can be read or made again
SAMPLE_BYTES = 2**20
INPUTS = 256  # input images whose latents are remembered: 2 MB each at 1024 pixels
CPU_GRAPH_IMAGES = 32
ENCODERS_SENSITIVE = ("lm_head", "text_projection")
COMPILED_VARIANTS = 64  # of a block: each role with and without gradient, for some batch sizes


def encode_batch(kind: str) -> int:
    """Prompts that are embedded at once on devices of this kind. A CPU's products round by how many rows they have: one by
    one, a prompt's embedding does not depend on those beside it, which are others after a resume."""
    return 1 if kind == "cpu" else ENCODE_BATCH


def text_encoders(folder: Path) -> list[str]:
    """Names of the pipeline's text encoders."""
    return [name for name in listed_parts(folder) if name.startswith("text_encoder")]


def load_pipeline(folder: Path, memory: MemorySettings) -> diffusers.DiffusionPipeline:
    """The folder's stock pipeline on the CPU: VAE in fp32, the rest in bf16 with `half`; no text encoders with "free"."""
    family = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
    absent = dict.fromkeys(parts_gone_without(folder))  # stock wants to be told that they are meant to be absent
    if memory.text_encoders == "free":
        absent |= dict.fromkeys(text_encoders(folder))
    dtype = {"default": frozen_dtype(memory), "vae": torch.float32}
    variant = next(filter(None, check_folder(folder).values()), None)  # parts without it are read as they are
    absent |= dict.fromkeys(readers := text_alone(folder))
    pipeline = family.from_pretrained(folder, dtype=dtype, variant=variant, use_safetensors=True, **absent)
    pipeline.register_modules(**readers)
    check_finite(folder, {name: getattr(pipeline, name, None) for name in listed_parts(folder)})
    return pipeline


def check_finite(folder: Path, parts: Mapping[str, object]) -> None:
    """Raise ValueError, naming part and tensor, on weights that are NaN or infinite."""
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module) and (key := first_not_finite(part.state_dict().items())):
            raise ValueError(f"model: {key} in {folder / name} is not finite; take other weights")


def empty_pipeline(
    folder: Path, memory: MemorySettings, where: FakeTensorMode | torch.device
) -> diffusers.DiffusionPipeline:
    """The folder's pipeline from its configurations alone, text encoders included; see `load_backend`."""
    family = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
    check_folder(folder)
    made = dict.fromkeys(parts_gone_without(folder)) | text_alone(folder)
    for name, (library, kind) in listed_parts(folder).items():
        if name in made:
            continue
        cls = getattr(importlib.import_module(library), kind)
        if not issubclass(cls, torch.nn.Module):
            made[name] = cls.from_pretrained(folder / name)
            continue
        with where, _default_dtype(torch.float32 if name == "vae" else frozen_dtype(memory)):
            if library == "diffusers":
                made[name] = cls.from_config(cls.load_config(folder / name))
            else:
                made[name] = cls(cls.config_class.from_pretrained(folder / name))
        if isinstance(where, torch.device):
            _fill(made[name])
    return family(**made)


@torch.no_grad()
def _fill(part: torch.nn.Module) -> None:
    """Random matrices: fresh networks have zeros, and tensors that nobody has written."""
    for p in part.parameters():
        if p.ndim > 1:
            p.normal_(std=0.02)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def frozen_dtype(memory: MemorySettings) -> torch.dtype:
    """Of the transformer's and the text encoders' weights."""
    return torch.bfloat16 if memory.half else torch.float32


def encoders_identity(folder: Path, memory: MemorySettings) -> str:
    """24 hex digits that change with what embeddings depend on: the pipeline's class, the precision, tokenizers and
    configurations (whole), and weights (size, and three samples of 1 MiB a file: reading 10 GB would take longer than most
    rounds' encoding)."""
    index = json.loads((folder / "model_index.json").read_text())
    precision = f"{frozen_dtype(memory)}" + (f" {memory.weights}" if memory.weights != "none" else "")
    digest = hashlib.sha256(f"1 {index['_class_name']} {precision}".encode())
    for name in sorted(listed_parts(folder)):
        if not name.startswith(("text_encoder", "tokenizer")):
            continue
        for path in sorted(p for p in (folder / name).rglob("*") if p.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()} {size} ".encode())
            with path.open("rb") as file:
                if size <= 3 * SAMPLE_BYTES or path.suffix == ".json":
                    digest.update(file.read())
                    continue
                for start in (0, size // 2, size - SAMPLE_BYTES):
                    file.seek(start)
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:24]


class EmbeddingFolder:
    """Embeddings of single prompts as safetensors files, by the prompt's hash, in a folder for each set of encoders."""

    def __init__(self, root: Path, identity: str):
        self.root = root / identity

    def _file(self, prompt: str) -> Path:
        name = hashlib.sha256(prompt.encode()).hexdigest()
        return self.root / name[:2] / f"{name}.safetensors"

    def read(self, prompt: str) -> Conditioning | None:
        """What `write` kept; None when there is nothing or the file is damaged, so that it is written again."""
        try:
            tensors = load_file(self._file(prompt))
            return Conditioning(**{k: v.float() if v.dtype == torch.bfloat16 else v for k, v in tensors.items()})
        except (OSError, SafetensorError, TypeError):
            return None

    def write(self, prompt: str, row: Conditioning) -> None:
        """Keep one prompt's embeddings, in bf16 where that loses nothing."""
        tensors = {k: v.contiguous().cpu() for k, v in row.tensors().items()}
        for name, value in tensors.items():
            if value.dtype == torch.float32 and torch.equal(value.bfloat16().float(), value):
                tensors[name] = value.bfloat16()
        write_atomic(self._file(prompt), save(tensors, metadata={"prompt": prompt}))


class Managed:
    """A backend under memory settings. Has everything the backend has; `encode`, `velocity` and `decode` are its own.

    `recompute(function, *arguments)` runs part of a pass without keeping what its gradient needs; `Roles` puts in its own,
    which computes it again under the role that was active.
    """

    def __init__(self, inner: Backend, folder: Path, memory: MemorySettings):
        self.inner, self.folder, self.memory = inner, folder, memory
        self.device: torch.device = inner.device
        self.transformer: torch.nn.Module = inner.transformer
        self.recompute: Callable = lambda f, *a: checkpoint(f, *a, use_reentrant=False, preserve_rng_state=False)
        pipeline = inner.pipeline
        pipeline.set_progress_bar_config(disable=True)
        self._encoders = text_encoders(folder)
        self.sharded = memory.shard and world() > 1
        self._rows: dict[str, Conditioning] = {}  # on the CPU, the longest unused first
        self._inputs: dict[Path, torch.Tensor] = {}  # latents of input images, the same way
        self._bytes = 0
        kept = encoders_identity(folder, memory) if memory.embeddings else ""
        self._kept = EmbeddingFolder(Path(memory.embeddings), kept) if kept else None
        for part in (self.transformer, pipeline.vae, *self._present()):
            part.eval().requires_grad_(False)
        self._quantise(self.transformer, inner.sensitive)
        for part in self._present():
            self._quantise(part, ENCODERS_SENSITIVE)
        if all(p.ndim < 5 for p in pipeline.vae.parameters()):  # Qwen-Image's is one of videos
            pipeline.vae.to(memory_format=torch.channels_last)  # convolutions on CPU run 1.5 times as fast so
        if memory.streamed and memory.compile:
            raise ValueError("streamed: compiled blocks cannot come and go; turn streamed or compile off")
        if not memory.vae_offload:
            pipeline.vae.to(self.device)
        for part in self._present() if self.sharded else ():
            shard(part, encoder_blocks(part), self.device, trained=False)
        if memory.text_encoders == "keep":
            for part in self._present():
                part.to(self.device)
        self.adapt(memory)
        if memory.compile:
            compile_blocks(self.transformer)
        if kind_of(self.device) == "cpu":
            rewrite(pipeline.vae)
            if not memory.compile:
                rewrite(self.transformer)
        self._stream = None
        if memory.streamed:
            blocks = inner.streamed_blocks()
            self._stream = Streamed(
                self.transformer, blocks, memory.streamed, self.device, lambda *arguments: self.recompute(*arguments)
            )
        if self.sharded:
            shard(self.transformer, inner.streamed_blocks(), self.device, trained=True)
        self._move(self.device)

    def adapt(self, memory: MemorySettings) -> None:
        """Go on under settings that differ in the passes' sizes, in checkpointing or in tiling; other parts stay."""
        self.memory = memory
        # Images in a pass with gradient, where the loss can be parted; 0: all. A CPU gains nothing from more at once.
        self.graph_images = memory.micro_batch or (CPU_GRAPH_IMAGES if kind_of(self.device) == "cpu" else 0)
        vae = self.inner.pipeline.vae
        if memory.vae_tiling:
            tile_by_half(vae, min(self.inner.own_size) // self.inner.pipeline.vae_scale_factor)
        elif vae.use_tiling:
            vae.disable_tiling()
        if memory.checkpointing and not memory.streamed:  # which computes its blocks again by itself
            self.transformer.enable_gradient_checkpointing(lambda *arguments: self.recompute(*arguments))
        elif self.transformer.is_gradient_checkpointing:
            self.transformer.disable_gradient_checkpointing()

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def _present(self) -> list[torch.nn.Module]:
        parts = (getattr(self.inner.pipeline, name) for name in self._encoders)
        return [part for part in parts if part is not None]

    def _move(self, device: torch.device | str) -> None:
        """Move the transformer; of a streamed one what is not streamed."""
        (self._stream or self.transformer).to(device)

    def _quantise(self, part: torch.nn.Module, sensitive: tuple[str, ...]) -> None:
        kind = self.memory.weights
        if kind == "none":
            return
        if not sensitive:
            raise ValueError(
                f"weights: {type(self.inner).__name__} does not name its sensitive layers; turn {kind} off"
            )
        quantise(part, kind, sensitive, self.device)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embeddings of B prompts on the device, each computed once: remembered, and kept in the folder if there is one."""
        self.prepare(prompts)
        dtype = frozen_dtype(self.memory)
        together = Conditioning.concatenate([self._recall(str(p)) for p in prompts])
        if any(isinstance(p, Instruction) for p in prompts):
            together = replace(together, image=self._input_latents(prompts))
        return together.map(lambda t: t.to(self.device, dtype if t.is_floating_point() else t.dtype))

    def prepare(self, prompts: Sequence[str]) -> None:
        """Compute the embeddings of all these prompts in one go, so that the text encoders are not needed again."""
        if self.memory.text_encoders == "keep" and self._bytes > REMEMBERED_BYTES:
            self._rows, self._bytes = {}, 0  # they are soon made again; a worker that lives for weeks must not fill up
        missing = [p for p in dict.fromkeys(map(str, prompts)) if self._recall(p) is None]
        if self.sharded:  # whose folder has which may differ, and all must pass the same through the encoders
            (missing,) = broadcast_object_list([missing])
        if not missing:
            return
        with self._encoders_at_work():
            size = encode_batch(self.device.type)
            for start in range(0, len(missing), size):
                part = missing[start : start + size]
                made = self.inner.encode(part).map(lambda t: t.cpu())
                for i, prompt in enumerate(part):
                    row = made.row(i)
                    if self._kept:
                        self._kept.write(prompt, row)
                    self._remember(prompt, row)

    def _input_latents(self, prompts: Sequence[str]) -> torch.Tensor:
        """Latents (B, C, h, w) of the prompts' input images, each encoded once while it is among the last `INPUTS`. Raises
        ValueError when some have none, or another size."""
        if len({input_size(p) for p in prompts}) > 1:
            raise ValueError("input_image: only prompts whose input images have one size go through a network together")
        for prompt in dict.fromkeys(prompts):
            if (found := self._inputs.pop(prompt.file, None)) is None:
                with self._vae_at_work():
                    found = self.inner.encode_input(prompt.read()).cpu()
            self._inputs[prompt.file] = found
        rows = torch.stack([self._inputs[p.file] for p in prompts])
        while len(self._inputs) > INPUTS:
            self._inputs.pop(next(iter(self._inputs)))
        return rows

    def _recall(self, prompt: str) -> Conditioning | None:
        """One prompt's embeddings from the machine's memory or the folder."""
        if prompt in self._rows:
            row = self._rows[prompt] = self._rows.pop(prompt)
            return row
        row = self._kept.read(prompt) if self._kept else None
        if row is not None:
            self._remember(prompt, row)
        return row

    def _remember(self, prompt: str, row: Conditioning) -> None:
        self._rows[prompt] = row
        self._bytes += sum(t.nbytes for t in row.tensors().values())
        while self._kept and self._bytes > REMEMBERED_BYTES and len(self._rows) > 1:
            oldest = self._rows.pop(next(iter(self._rows)))
            self._bytes -= sum(t.nbytes for t in oldest.tensors().values())

    @contextmanager
    def _encoders_at_work(self) -> Iterator[None]:
        """The text encoders on the device. Unless they live there, the transformer makes room for them."""
        where = self.memory.text_encoders
        if where == "keep":
            yield
            return
        self._move("cpu")
        try:
            for name in self._encoders:
                part = getattr(self.inner.pipeline, name)
                if part is None:
                    part = load_component(self.folder, name, frozen_dtype(self.memory))
                    part.eval().requires_grad_(False)
                    self._quantise(part, ENCODERS_SENSITIVE)
                    if self.sharded:
                        shard(part, encoder_blocks(part), self.device, trained=False)
                    setattr(self.inner.pipeline, name, part)
                part.to(self.device)
            yield
        finally:
            for name in self._encoders:
                part = getattr(self.inner.pipeline, name)
                if part is not None:
                    part.to("cpu")
                if where == "free":
                    setattr(self.inner.pipeline, name, None)
            del part
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._move(self.device)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`; `micro_batch` rows at a time. With gradient, each of these parts is computed again in the
        backward pass, so that what one part's gradient needs is all that is ever held."""
        return divided(self._passes, x, t, conditioning) if self.sharded else self._passes(x, t, conditioning)

    def _passes(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        size = self.memory.micro_batch or len(x)
        with autocast(self.device, forced=True) if self.memory.half else nullcontext():
            if len(x) <= size:
                return self.one_pass(x, t, conditioning)
            run = self.recompute if torch.is_grad_enabled() else lambda f, *arguments: f(*arguments)
            parts = []
            for start in range(0, len(x), size):
                rows = slice(start, start + size)
                parts.append(run(self.one_pass, x[rows], t[rows], conditioning.take(rows)))
            return torch.cat(parts)

    def one_pass(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The same in one go, whatever `micro_batch` says."""
        if self.memory.compile and (more := compiled_rows(len(x)) - len(x)):
            rows = torch.cat([torch.arange(len(x)), torch.full((more,), len(x) - 1)]).to(x.device)
            return self.one_pass(x[rows], t[rows], conditioning.take(rows))[: len(x)]
        # Blocks that are computed again or compiled would not meet the mode a second time.
        memory = self.memory
        plain = kind_of(self.device) == "cpu" and not (memory.checkpointing or memory.streamed or memory.compile)
        plain = plain and torch.is_grad_enabled()
        with PlainAttention() if plain else nullcontext():
            return self.inner.velocity(x, t, conditioning)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, *, bf16: bool = False) -> list[Image.Image]:
        """See `Backend.decode`; `vae_batch` images at a time."""
        with self._vae_at_work():
            parts = latents.split(self.memory.vae_batch)
            return [image for part in parts for image in self.inner.decode(part, bf16=bf16)]

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """See `Backend.encode_images`; `vae_batch` images at a time."""
        size = self.memory.vae_batch
        with self._vae_at_work():
            parts = [images[start : start + size] for start in range(0, len(images), size)]
            return torch.cat([self.inner.encode_images(part) for part in parts])

    @contextmanager
    def _vae_at_work(self) -> Iterator[None]:
        """The VAE on the device, also where it does not stay there."""
        vae = self.inner.pipeline.vae
        try:
            if self.memory.vae_offload:
                vae.to(self.device)
            yield
        finally:
            if self.memory.vae_offload:
                vae.to("cpu")


def load_component(folder: Path, name: str, dtype: torch.dtype) -> torch.nn.Module:
    """One part of a pipeline folder, on the CPU."""
    library, kind = listed_parts(folder)[name]
    part = getattr(importlib.import_module(library), kind).from_pretrained(
        folder / name, dtype=dtype, variant=check_part(folder, name), use_safetensors=True
    )
    check_finite(folder, {name: part})
    return part


def tile_by_half(vae: torch.nn.Module, latent_size: int) -> None:
    """Decode in tiles of half the model's own image size. The VAE's own default tile is the whole image."""
    if hasattr(vae, "tile_sample_stride_height"):  # one of videos
        tile, stride = (side * vae.spatial_compression_ratio for side in (latent_size // 2, latent_size * 3 // 8))
        vae.enable_tiling(tile, tile, stride, stride)
        return
    vae.enable_tiling()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.tile_latent_min_size = latent_size // 2
    vae.tile_sample_min_size = latent_size // 2 * factor


def compiled_rows(count: int) -> int:
    """How many images a compiled pass of `count` has: groups without signal are left out, so that the count changes with
    every update, and each new one would be compiled. Filled up to one of four sizes between powers of two."""
    step = max(1, 2 ** ((count - 1).bit_length() - 3))
    return -(-count // step) * step


def compile_blocks(model: torch.nn.Module, **options) -> int:
    """Compile each of the model's repeated blocks by itself, in seconds where the whole model takes minutes; returns
    how many. `options` are torch.compile's."""
    names = getattr(model, "_repeated_blocks", None) or getattr(model, "_no_split_modules", None) or ()
    blocks = [m for m in model.modules() if type(m).__name__ in names]
    if not blocks:
        raise ValueError(f"compile: {type(model).__name__} does not name its repeated blocks; turn it off")
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, COMPILED_VARIANTS)  # beyond it blocks silently run uncompiled
    for block in blocks:
        block.compile(**options)
    return len(blocks)
