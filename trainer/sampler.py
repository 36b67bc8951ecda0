"""Sample groups of few-step images and keep their trajectories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save

from common.files import write_atomic
from common.settings import MemorySettings, SampleSettings
from common.sizes import Size
from trainer.backends import Backend, Conditioning, autocast, load_backend, moved
from trainer.flow import SOLVERS
from trainer.roles import STUDENT, TEACHER, Roles


def initial_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """One seed an image: (B, *shape), the same whatever the batch around it."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def related_noise(
    groups: int, size: int, shape: tuple[int, ...], spread: float, generator: torch.Generator
) -> torch.Tensor:
    """Noise of `groups` groups of `size` images, (groups·size, *shape), each image's N(0, 1): `sqrt(1 - spread)` of it is
    shared by the group and `sqrt(spread)` is the image's own. With spread 1 all noise is independent."""
    shared = torch.randn((groups, 1, *shape), generator=generator)
    own = torch.randn((groups, size, *shape), generator=generator)
    return ((1 - spread) ** 0.5 * shared + spread**0.5 * own).flatten(0, 1)


@torch.no_grad()
def sample_latents(
    backend: Backend,
    conditioning: Conditioning,
    noise: torch.Tensor,
    grid: torch.Tensor,
    *,
    guidance: float = 1.0,
    bf16: bool = False,
    solver: str = "euler",
) -> torch.Tensor:
    """Whole trajectories (B, K + 1, C, h, w) by one of `flow.SOLVERS` under the active role.

    `guidance` above 1 evaluates the empty prompt beside each prompt, which doubles the NFE: K steps, 2·K evaluations.
    """
    both = conditioning
    if guidance > 1:
        both = conditioning.beside_empty(backend.encode([""]))

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if guidance <= 1:
            return backend.velocity(x, t, both)
        return backend.guided(*backend.velocity(x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2), guidance)

    with autocast(backend.device, bf16):
        return SOLVERS[solver](velocity, moved(noise, backend.device), grid)


@dataclass(frozen=True)
class SampledGroup:
    """Images of one prompt with what made them: `trajectory` (G, K + 1, C, h, w), `sigmas` (K + 1,)."""

    images: list[Image.Image]
    trajectory: torch.Tensor
    sigmas: torch.Tensor
    seeds: tuple[int, ...]


class Sampler:
    """One model in memory; versions are adapters that are swapped in."""

    def __init__(
        self,
        model_dir: Path | str,
        *,
        device: str = "cpu",
        settings: SampleSettings | None = None,
        memory: MemorySettings | None = None,
        size: Size | None = None,
    ):
        """`size` is that of the largest images, which memory that is `auto` is found out for."""
        self.backend = load_backend(model_dir, device=device, memory=memory, size=size)
        self.settings = settings or SampleSettings()
        self.roles: Roles | None = None
        self._shape: tuple | None = None  # the adapter's rank, alpha and modules
        self._version: Path | None = None
        self._merged = ExitStack()

    def use_version(self, version_dir: Path | str | None) -> None:
        """Sample with this version's LoRA; None is the bare base model. Raises ValueError on a LoRA that does not fit."""
        if version_dir is None:
            self._merged.close()
            if self.roles is not None:
                self.roles.use(TEACHER)
            self._version = None
            return
        version_dir = Path(version_dir)
        if self._version == version_dir:
            return
        lora = self.backend.load_lora(version_dir)
        self._merged.close()
        self._version = None
        shape = (lora.rank, lora.alpha, lora.targets)
        if self._shape != shape:
            if self.roles is not None:
                self.roles.remove()
            self.roles, self._shape = None, None
            self.roles = Roles(
                self.backend.transformer, lora.targets, rank=lora.rank, alpha=lora.alpha, roles=(STUDENT,)
            )
            self._shape = shape
        self.roles.load_state_dict(STUDENT, lora.state)
        self._merged.enter_context(self.roles.merged(STUDENT))
        self._version = version_dir

    def drop_version(self) -> None:
        """Give the model back without adapters, for others of its own."""
        self._merged.close()
        if self.roles is not None:
            self.roles.remove()
        self.roles = self._shape = self._version = None

    def sample_group(
        self,
        prompt: str,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float = 1.0,
        size: Size | None = None,
    ) -> SampledGroup:
        """One image a seed; the same seeds and version give the same group. `steps` are the sampler's own and `size` the
        model's own unless given."""
        with self.backend.sized(size):
            noise = initial_noise(seeds, self.backend.latent_shape)
            return self.sample_from(prompt, noise, seeds, steps=steps, guidance=guidance)

    def encode_group(self, images: Sequence[Image.Image]) -> SampledGroup:
        """Images of any origin as a group whose trajectory is one point, the encoded image; others than squares of the
        model's size are cut and resized."""
        size = self.backend.own_size
        fitted = [i if i.size == size else ImageOps.fit(i, size, Image.Resampling.LANCZOS) for i in images]
        latents = self.backend.encode_images(fitted).cpu()
        return SampledGroup(fitted, latents[:, None], torch.zeros(1), ())

    def sample_from(
        self, prompt: str, noise: torch.Tensor, seeds: Sequence[int], *, steps: int | None = None, guidance: float = 1.0
    ) -> SampledGroup:
        """One image of each first noise (G, C, h, w), of the present size; `seeds` are what it is said to be made of."""
        grid = self.backend.grid(steps or self.settings.steps)
        conditioning = self.backend.encode([prompt]).repeat(len(noise))
        trajectory = sample_latents(self.backend, conditioning, noise, grid, guidance=guidance).cpu()
        images = self.backend.decode(trajectory[:, -1].to(self.backend.device), bf16=True)
        return SampledGroup(images, trajectory, grid, tuple(seeds))


@dataclass(frozen=True)
class StoredTrajectory:
    """What `save_trajectory` kept: `trajectory` (G, K + 1, C, h, w) float32, `sigmas` (K + 1,). Encoded images have one
    point, at level 0, and no seeds."""

    trajectory: torch.Tensor
    sigmas: torch.Tensor
    prompt: str
    version: str
    seeds: tuple[int, ...]


def trajectory_bytes(group: SampledGroup, *, prompt: str, version: str) -> bytes:
    """A group's trajectories in fp16, as safetensors."""
    tensors = {"trajectory": group.trajectory.half().contiguous(), "sigmas": group.sigmas.contiguous()}
    metadata = {"prompt": str(prompt), "version": version, "seeds": json.dumps(group.seeds)}
    return save(tensors, metadata=metadata)


def save_trajectory(path: Path, group: SampledGroup, *, prompt: str, version: str) -> None:
    """The same as a file, atomically."""
    write_atomic(path, trajectory_bytes(group, prompt=prompt, version=version))


def load_trajectory(path: Path) -> StoredTrajectory:
    """Read what `save_trajectory` wrote. Raises ValueError, naming the file, when it cannot be read or holds something
    else: other shapes or types, or numbers that are not finite."""
    with _reading(path) as file:
        metadata, seeds = _check_header(file)
        trajectory, sigmas = file.get_tensor("trajectory").float(), file.get_tensor("sigmas").float()
        if not trajectory.isfinite().all():
            raise ValueError("trajectory: a number is not finite")
        if not ((sigmas >= 0) & (sigmas <= 1)).all():
            raise ValueError("sigmas: a number is not within 0 and 1")
        return StoredTrajectory(trajectory, sigmas, metadata["prompt"], metadata["version"], seeds)


def check_trajectory(path: Path) -> tuple[int, ...]:
    """Its shape (G, K + 1, C, h, w). Raises the same ValueError on a file that is gone, cut off or something else; its
    numbers are not read."""
    with _reading(path) as file:
        _check_header(file)
        return tuple(file.get_slice("trajectory").get_shape())


def _check_header(file) -> tuple[dict[str, str], tuple[int, ...]]:
    """(metadata, seeds) of a file whose tensors have the shapes and types of a trajectory; else ValueError."""
    metadata, shapes = file.metadata() or {}, {}
    if set(file.keys()) != {"trajectory", "sigmas"} or not {"prompt", "version", "seeds"} <= set(metadata):
        raise ValueError("it does not hold a trajectory")
    for name in ("trajectory", "sigmas"):
        tensor = file.get_slice(name)
        shapes[name] = tensor.get_shape()
        if tensor.get_dtype() not in ("F16", "F32") or 0 in shapes[name]:
            raise ValueError(f"{name}: {tensor.get_dtype()} {shapes[name]} is not float16 or float32 of some size")
    seeds = json.loads(metadata["seeds"])
    if not isinstance(seeds, list) or not all(type(seed) is int and abs(seed) < 2**63 for seed in seeds):
        raise ValueError("seeds: they are not a list of whole numbers")
    # Of an image that was encoded, not made, there is one point and no seed.
    encoded = shapes["trajectory"][1:2] == [1] and not seeds
    if len(shapes["trajectory"]) != 5 or (shapes["trajectory"][0] != len(seeds) and not encoded):
        raise ValueError(
            f"trajectory: {shapes['trajectory']} is not (images, steps + 1, C, h, w) of {len(seeds)} seeds"
        )
    if shapes["sigmas"] != [shapes["trajectory"][1]]:
        raise ValueError(f"sigmas: {shapes['sigmas']} is not of {shapes['trajectory'][1]} times")
    return metadata, tuple(seeds)


@contextmanager
def _reading(path: Path) -> Iterator:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"trajectory: {path} cannot be read ({error}); the group must be left out") from error
    except Exception as error:  # safetensors raises its own type, which it does not export as a ValueError
        raise ValueError(f"trajectory: {path} is damaged ({error}); the group must be left out") from error
