"""What a group comes to in each format: pure functions from a record to rows. docs/data-formats.md has the columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC

from webapp.exports.identity import number
from webapp.exports.records import GroupRecord, ImageRecord, LabelRecord

# How an image is named in a row: its address, its path in the archive, or itself as a data URI.
Reference = Callable[[GroupRecord, ImageRecord], str | None]


def image_uid(group: GroupRecord, image: ImageRecord) -> str:
    """A name for an image that is the same in every export: project, group and position."""
    return f"{group.project}-{group.id}-{image.position}"


def likes(group: GroupRecord) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """(liked, disliked) images by reward; one half, and nobody's decision, is neither."""
    liked = [i for i in group.images if i.reward is not None and i.reward > 0.5]
    return liked, [i for i in group.images if i.reward is not None and i.reward < 0.5]


def labels_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """One row a label with its whole provenance; the only format that can be imported back."""
    for image in group.images:
        for v in image.labels:
            yield {
                "group": group.id,
                "position": image.position,
                "image_uid": image_uid(group, image),
                "image": reference(group, image),
                "prompt": group.prompt,
                "metadata": json.dumps(group.metadata, ensure_ascii=False),
                "input_image": group.input_image or None,
                "split": group.split,
                "origin": group.origin,
                "version": group.version,
                "version_sha256": group.version_sha256,
                "seed": image.seed,
                "width": image.width,
                "height": image.height,
                "steps": group.steps,
                "inclusion": image.inclusion,
                "annotator": v.annotator or None,
                "oracle": v.oracle or None,
                "liked": v.liked,
                "score": v.score,
                "reason": v.reason or None,
                "box": json.dumps(v.box) if v.box else None,
                "reward": image.reward,
                "seconds": group.seconds.get(v.annotator) if v.annotator else None,
                "created_at": v.created_at,
            }


def unpaired_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """One row an image that is liked or disliked, with its caption, as Diffusion-KTO reads it."""
    for liked, images in zip((True, False), likes(group), strict=True):
        for image in images:
            yield {"image": reference(group, image), "caption": group.prompt, "label": liked}


def _pairs(group: GroupRecord) -> Iterator[tuple[ImageRecord, ImageRecord, bool]]:
    """Every liked image against every disliked one in order of position, and whether the first is the liked one."""
    liked, disliked = likes(group)
    for a in liked:
        for b in disliked:
            yield (a, b, True) if a.position < b.position else (b, a, False)


def preference_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """The columns that Diffusion-DPO reads of Pick-a-Pic, with the pairs of the consensus."""
    for first, second, better in _pairs(group):
        yield {
            "caption": group.prompt,
            "image_0_url": reference(group, first),
            "image_1_url": reference(group, second),
            "jpg_0": reference(group, first),
            "jpg_1": reference(group, second),
            "label_0": float(better),
            "label_1": float(not better),
        }


def pickapic_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """Pick-a-Pic v2: one row a person and pair of a liked and a disliked image, in order of position."""
    for who in group.annotators():
        own = [(i, v) for i in group.images for v in i.labels if v.annotator == who]
        pairs = [(a, b) for n, a in enumerate(own) for b in own[n + 1 :] if a[1].liked != b[1].liked]
        for (first, v0), (second, v1) in pairs:
            best = first if v0.liked else second
            yield {
                "are_different": True,
                "best_image_uid": image_uid(group, best),
                "caption": group.prompt,
                "created_at": max(v0.created_at, v1.created_at).astimezone(UTC).replace(tzinfo=None),
                "has_label": True,
                "image_0_uid": image_uid(group, first),
                "image_0_url": reference(group, first),
                "image_1_uid": image_uid(group, second),
                "image_1_url": reference(group, second),
                "jpg_0": reference(group, first),
                "jpg_1": reference(group, second),
                "label_0": float(v0.liked),
                "label_1": float(v1.liked),
                "model_0": _model(group),
                "model_1": _model(group),
                "ranking_id": group.id,
                "user_id": number(who),
                "num_example_per_prompt": len(pairs),
            }


def _model(group: GroupRecord) -> str:
    return group.origin if group.version is None else f"version-{group.version}"


def hpd_train_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """HPDv2's train split: one row a pair, 1 for the better image."""
    for first, second, better in _pairs(group):
        yield {
            "prompt": group.prompt,
            "file_path": [reference(group, first), reference(group, second)],
            "human_preference": [int(better), int(not better)],
        }


def hpd_test_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """HPDv2's test split: one row a group, ranked by reward, and as each person ranks it."""
    if not (decided := _ranked(group)):
        return
    yield {
        "prompt": group.prompt,
        "image_path": [reference(group, i) for i in decided],
        "rank": ranks([i.reward for i in decided]),
        "raw_annotations": [
            {"rank": ranks([float(v.liked) for v in own]), "user_hash": who.removeprefix("person-")}
            for who, own in _complete(group, decided)
        ],
    }


def imagereward_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """ImageReward's ranking of a group by reward."""
    if not (decided := _ranked(group)):
        return
    yield {
        "id": f"{group.project}-{group.id}",
        "prompt": group.prompt,
        "generations": [reference(group, i) for i in decided],
        "ranking": ranks([i.reward for i in decided]),
    }


def ranks(rewards: list[float]) -> list[int]:
    """1 for the best; equal ones share a rank."""
    best_first = sorted(set(rewards), reverse=True)
    return [best_first.index(v) + 1 for v in rewards]


def _ranked(group: GroupRecord) -> list[ImageRecord]:
    """The decided images; none unless one of them is better than another, since such a group ranks nothing."""
    decided = [i for i in group.images if i.reward is not None]
    return decided if len({i.reward for i in decided}) > 1 else []


def _complete(group: GroupRecord, images: list[ImageRecord]) -> Iterator[tuple[str, list[LabelRecord]]]:
    """The people who labelled each of the images, with their labels in the images' order."""
    for who in group.annotators():
        own = [next((v for v in i.labels if v.annotator == who), None) for i in images]
        if None not in own:
            yield who, own
