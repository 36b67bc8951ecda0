"""Labelled groups as the web app hands them over: JSON lines that name trajectory files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.settings import WITH_SURROGATE
from trainer.advantages import group_advantages, has_signal
from trainer.batches import equal_parts
from trainer.prompts import INPUT, input_size, instruction
from trainer.sampler import check_trajectory, load_trajectory


@dataclass(frozen=True)
class LabelledGroup:
    """One line of groups.jsonl, whose `trajectory_file` may be relative to that file's folder. `rewards` are shares of
    likes in 0..1, None where nobody decided. `imported` ones are somebody's own images: their trajectory is the encoded
    image alone. `inclusion` is each image's chance to be shown of those that were made, above 0, or nothing where all
    are."""

    group: str
    prompt: str
    metadata: dict
    version: str
    trajectory_file: str
    rewards: tuple[float | None, ...]
    imported: bool = False
    inclusion: tuple[float, ...] = ()


def read_groups(path: Path) -> list[LabelledGroup]:
    """Every line of a groups file. Raises ValueError, naming file, line and field, on a bad one; nothing is half read."""
    groups = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            row["rewards"] = tuple(row["rewards"])
            if bad := [r for r in row["rewards"] if r is not None and not 0 <= r <= 1]:
                raise ValueError(f"rewards: {bad[0]} is not within 0 and 1")
            row["inclusion"] = tuple(row.get("inclusion", ()))
            if len(row["inclusion"]) not in (0, len(row["rewards"])) or not all(0 < p <= 1 for p in row["inclusion"]):
                raise ValueError("inclusion: give a number above 0, at most 1, for each reward")
            row["trajectory_file"] = str(path.parent / row["trajectory_file"])
            groups.append(LabelledGroup(**row))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return groups


def without_imported(groups: Sequence[LabelledGroup]) -> list[LabelledGroup]:
    """The groups for a method that trains the student on the labelled images themselves. Raises ValueError when there were
    own images only."""
    kept = [group for group in groups if not group.imported]
    if groups and not kept:
        raise ValueError(
            "method: all labelled groups are of own images, which never teach the student itself; use "
            f"{' or '.join(WITH_SURROGATE)}, or label generated groups"
        )
    return kept


@dataclass(frozen=True)
class GroupBatch:
    """P groups of images of one size, padded to as many: `trajectory` (P, G, K + 1, C, h, w), `advantages` (P, G), 0 where
    padded, `rewards` (P, G), NaN where nobody decided or padded. Of `imported` groups (P,) every
    point is the image; None: there is none."""

    trajectory: torch.Tensor
    advantages: torch.Tensor
    rewards: torch.Tensor
    prompts: list[str]
    imported: torch.Tensor | None = None


@dataclass(frozen=True)
class GroupStore:
    """The groups of a round that carry signal, with `advantages` (P, G) taken over all of them and `rewards` (P, G), NaN
    where nobody decided. Trajectories stay in their files, a thousand of them may be 40 GB; `take` reads a batch's."""

    files: list[Path]
    advantages: torch.Tensor
    rewards: torch.Tensor
    prompts: list[str]
    shapes: list[tuple[int, ...]]  # (K + 1, C, h, w) of each group's trajectories; K and C are the same in all
    silent: int  # groups left out because their rewards are all the same (`common.signal`)
    damaged: tuple[str, ...]  # messages of groups whose trajectory could not be read
    imported: torch.Tensor | None = None  # (P,): which are own images; None: none of them

    def __len__(self) -> int:
        return len(self.prompts)

    def by_size(self, index: torch.Tensor) -> list[torch.Tensor]:
        """The groups of `index` (n,) parted by the sizes of their images and input images."""
        kinds = [(self.shapes[i], input_size(self.prompts[i])) for i in index.tolist()]
        return [index[part] for part in equal_parts(kinds, len(kinds))]

    def take(self, index: torch.Tensor, shape: tuple[int, ...] | None = None) -> GroupBatch:
        """The groups of `index` (n,), whose images have one size; of none, `shape` says it. Raises ValueError, naming the
        file, on a trajectory that can no longer be read."""
        width, chosen = self.advantages.shape[1], index.tolist()
        imported = None if self.imported is None else self.imported[index]
        found = [load_trajectory(self.files[i]).trajectory for i in chosen]
        found = [t.expand(-1, self.shapes[0][0], *t.shape[2:]) if t.shape[1] == 1 else t for t in found]
        if not found:  # of a process that an update has no groups for
            shape = shape or self.shapes[0]
            return GroupBatch(torch.empty(0, width, *shape), self.advantages[index], self.rewards[index], [], imported)
        padded = torch.stack([torch.cat([t, t[:1].expand(width - len(t), *t.shape[1:])]) for t in found])
        prompts = [self.prompts[i] for i in chosen]
        return GroupBatch(padded, self.advantages[index], self.rewards[index], prompts, imported)


def load_groups(groups: Sequence[LabelledGroup], inputs: Path | None = None) -> GroupStore:
    """The groups with signal whose trajectories can be read, have an image a reward, and are of the first one's kind,
    whatever the size of their images; imported ones have one point. `inputs` has the input images that metadata name; a
    group whose own is gone is left out too. Raises ValueError when there is none."""
    rewards, known = pad_rewards([g.rewards for g in groups])
    inclusion = None
    if any(g.inclusion for g in groups):
        inclusion, _known = pad_rewards([g.inclusion or (1.0,) * len(g.rewards) for g in groups])
        inclusion = torch.where(inclusion > 0, inclusion, 1.0)
    advantages = group_advantages(rewards, known, inclusion=inclusion)
    loud = has_signal(rewards, known)
    kept, damaged, shapes, prompts = [], [], [], []
    points = channels = 0  # of generated trajectories, and of anybody's latents
    for i in loud.nonzero().flatten().tolist():
        try:
            images, *found = check_trajectory(Path(groups[i].trajectory_file))
            wanted = (1 if groups[i].imported else points or found[0], channels or found[1])
            if images != len(groups[i].rewards) or tuple(found[:2]) != wanted:
                raise ValueError(
                    f"trajectory: {groups[i].trajectory_file} is of {images} images of shape {tuple(found)}, not of "
                    f"{len(groups[i].rewards)} of {wanted} and any size; the group must be left out"
                )
            prompt, image = groups[i].prompt, groups[i].metadata.get(INPUT)
            prompts.append(instruction(prompt, image, inputs) if image else prompt)
            kept.append(i)
            channels = found[1]
            points = points if groups[i].imported else found[0]
            shapes.append(tuple(found))
        except ValueError as error:
            damaged.append(str(error))
    if not kept:
        raise ValueError(
            "groups: none has both a liked and a disliked image, so there is nothing to learn; label more groups"
            + (f" ({len(damaged)} could not be read: {damaged[0]})" if damaged else "")
        )
    files = [Path(groups[i].trajectory_file) for i in kept]
    rewards, index = torch.where(known, rewards, torch.nan), torch.tensor(kept)
    silent = int((~loud).sum())
    imported = torch.tensor([groups[i].imported for i in kept])
    return GroupStore(
        files,
        advantages[index],
        rewards[index],
        prompts,
        [(points or 1, *shape[1:]) for shape in shapes],  # an imported image is every point of its trajectory
        silent,
        tuple(damaged),
        imported if imported.any() else None,
    )


def pad_rewards(rewards: Sequence[Sequence[float | None]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(rewards, known), both (P, G): unknown and padded places are 0 and False."""
    width = max((len(r) for r in rewards), default=0)
    rows = [[*r, *[None] * (width - len(r))] for r in rewards]
    known = torch.tensor([[v is not None for v in r] for r in rows], dtype=torch.bool).reshape(len(rows), width)
    values = torch.tensor([[v or 0.0 for v in r] for r in rows], dtype=torch.float32).reshape(len(rows), width)
    return values, known
