"""What the trainer needs to know of a model family."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch.nn.functional import pad

from common.sizes import Size
from trainer.backends.lora import Lora

_PLANNED: ContextVar[str | None] = ContextVar("planned", default=None)  # the kind of device that `planned_for` names


@functools.cache
def bf16_pays(kind: str) -> bool:
    """Whether bfloat16 is faster than fp32 on devices of this kind. A CPU without instructions for it takes ten times as
    long (a Zen 3 EPYC: 2.5 training images a second instead of 27)."""
    if kind != "cpu":
        return True
    one_dnn = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if platform.machine() in ("x86_64", "AMD64"):
        return one_dnn and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return one_dnn


@contextmanager
def planned_for(kind: str) -> Iterator[None]:
    """Meanwhile everything is done on every device as on devices of this kind, as a GPU's plan needs that a CPU makes."""
    token = _PLANNED.set(kind)
    try:
        yield
    finally:
        _PLANNED.reset(token)


def kind_of(device: torch.device) -> str:
    """The kind of the device; within `planned_for` the one that is planned for."""
    return _PLANNED.get() or device.type


def autocast(device: torch.device, enabled: bool = True, *, forced: bool = False):
    """bfloat16 autocast on the device, where it is faster than fp32 (`bf16_pays`) or `forced`, as weights that are held in
    bfloat16 need it."""
    pays = forced or bf16_pays(kind_of(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and pays)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU through pinned memory, so that the program does not wait for what it computes."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class Conditioning:
    """Text embeddings of B prompts: `embeds` (B, T, D) and `pooled` (B, P), where P is 0 in families without one.
    In families whose prompts keep their own length, `lengths` (B,) tells how many of the T rows count. Where images are
    changed, `image` (B, C, h, w) are the latents of the input images."""

    embeds: torch.Tensor
    pooled: torch.Tensor
    lengths: torch.Tensor | None = None
    image: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def repeat(self, times: int) -> Conditioning:
        """Each row `times` times, neighbours together: (B·times, …)."""
        return self.map(lambda t: t.repeat_interleave(times, 0))

    def row(self, i: int) -> Conditioning:
        """One prompt, without what fills it up."""
        one = self.map(lambda t: t[i : i + 1].clone())
        return one if one.lengths is None else replace(one, embeds=one.embeds[:, : int(one.lengths)])

    def take(self, rows) -> Conditioning:
        """Some rows: a slice, or an index tensor."""
        return self.map(lambda t: t[rows])

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """The same with `function` of each tensor."""
        return Conditioning(**{name: function(tensor) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name, as the constructor takes them."""
        tensors = {"embeds": self.embeds, "pooled": self.pooled, "lengths": self.lengths, "image": self.image}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Along the batch; shorter prompts are filled up with zeros."""
        tokens = max(p.embeds.shape[1] for p in parts)
        embeds = torch.cat([pad(p.embeds, (0, 0, 0, tokens - p.embeds.shape[1])) for p in parts])
        lengths = None if parts[0].lengths is None else torch.cat([p.lengths for p in parts])
        if len({None if p.image is None else p.image.shape[1:] for p in parts}) > 1:
            raise ValueError("input_image: only prompts whose input images have one size go through a network together")
        image = None if parts[0].image is None else torch.cat([p.image for p in parts])
        return Conditioning(embeds, torch.cat([p.pooled for p in parts]), lengths, image)

    def beside_empty(self, empty: Conditioning) -> Conditioning:
        """These rows, and as many of the empty prompt with the same input images, as guidance needs them: (2·B, …)."""
        return Conditioning.concatenate([self, replace(empty.repeat(len(self)), image=self.image)])


class Backend(Protocol):
    """A few-step model family as the trainer sees it. Whatever the network predicts, the trainer sees the velocity
    `v = eps - x0` on the path `x_t = (1 - t)·x0 + t·eps`. What saves memory (caches, batches, offload, precision) is not a
    backend's business: `backends.memory.Managed` does that around any."""

    pipeline: DiffusionPipeline
    transformer: torch.nn.Module  # the network that is trained (SDXL's is a UNet)
    component: str  # its name in the pipeline
    device: torch.device
    own_size: Size  # that the model makes unless asked for another
    # Of the present size, see `sized`:
    size: Size
    latent_shape: tuple[int, int, int]
    shift: float  # training draws levels evenly in time un-shifted by this
    lora_targets: tuple[str, ...]  # module names, or their endings, that get LoRA
    sensitive: tuple[
        str, ...
    ]  # names in the network under which `weights` leaves linear layers whole; none: it is refused
    distilled: bool  # guidance is distilled into the model, so it cannot be guided any more

    def sized(self, size: Size | None) -> AbstractContextManager[None]:
        """Meanwhile images have this size (None: the model's own): `size`, `latent_shape`, `shift`, `grid` and `stock_call`
        are of it. Passes go by the latents that they are given. Raises ValueError on one that the model cannot make."""
        ...

    def size_of(self, latents: torch.Tensor | Sequence[int]) -> Size:
        """The size of images whose latents end in these, or in a shape's, two sides (h, w)."""
        ...

    def grid(self, steps: int) -> torch.Tensor:
        """The levels that `steps` steps visit, (steps + 1,), from the noisiest one the model knows (1 in flow models)
        down to 0; the stock pipeline's own."""
        ...

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """Arguments with which the stock pipeline walks the same steps, with our meaning of guidance
        (`uncond + guidance·(cond - uncond)`, 1 is none) put into its own."""
        ...

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embeddings, float32; "" is the unconditional prompt. Must name `device`, since the pipeline's own guess is wrong
        while parts of it are elsewhere."""
        ...

    def encode_input(self, image: Image.Image) -> torch.Tensor:
        """Latents (C, h, w), float32, of an image that a prompt changes, cut as the stock pipeline cuts it. Raises
        ValueError in families that change none, and on an image that the pipeline refuses."""
        ...

    def outline(self, count: int) -> Conditioning:
        """What `encode` gives for `count` prompts, by the same passes, where tensors have shapes and no values."""
        ...

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """`v = eps - x0` at (B, C, h, w) latents and levels (B,) in [0, `grid(…)[0]`], float32."""
        ...

    def guided(self, conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
        """The velocity with which the stock pipeline samples under guidance `scale`, from those of prompt and empty
        prompt."""
        ...

    def decode(self, latents: torch.Tensor, *, bf16: bool = False) -> list[Image.Image]:
        """Latents (B, C, h, w) → RGB images; `bf16` takes a third of the time on a CPU and moves a pixel by 3 of 255 at
        most (54 dB on the demo model)."""
        ...

    def streamed_blocks(self) -> list[torch.nn.Module]:
        """The parts of the network that may come to the device one by one; most of its weights. Raises ValueError where a
        family has none."""
        ...

    def blocks(self) -> list[torch.nn.Module]:
        """The network's blocks in order, for what reads the image tokens between them. Raises ValueError where a family has
        none that can be read."""
        ...

    def image_tokens(self, output) -> torch.Tensor:
        """The image's tokens (B, N, D) of what one of `blocks` gave."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """RGB images of the model's size → the latents that `decode` takes, (B, C, h, w) float32."""
        ...

    def save_lora(self, folder: Path, state: dict[str, torch.Tensor], *, rank: int, alpha: float) -> Path:
        """Write an adapter as a standard diffusers LoRA; returns the file."""
        ...

    def load_lora(self, folder: Path) -> Lora:
        """A LoRA folder as an adapter for `Roles`. Raises ValueError on what is no LoRA of this network."""
        ...
