"""What each export format makes of a group: pure functions from a record to rows. docs/data-formats.md has the columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from django.utils.translation import gettext_lazy as _

from webapp.exports.identity import number
from webapp.exports.records import GroupRecord, ImageRecord, LabelRecord

# How an image is named in a row: its address, or its path in the archive.
Reference = Callable[[GroupRecord, ImageRecord], str]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the layout of `datasets.Image`


@dataclass(frozen=True)
class Format:
    """A format: its rows, its columns' types, and the columns that hold an image reference."""

    name: str
    label: str
    rows: Callable[[GroupRecord, Reference], Iterator[dict]]
    schema: pa.Schema | None  # None: JSON only
    images: tuple[str, ...] = ()

    def embedded_schema(self) -> pa.Schema:
        """The schema with images as `datasets` reads them, bytes inside the file."""
        fields = [pa.field(f.name, IMAGE) if f.name in self.images else f for f in self.schema]
        features = {f.name: {"_type": "Image"} if f.name in self.images else _feature(f.type) for f in self.schema}
        note = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema(fields, metadata=note)


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
                "split": group.split,
                "version": group.version,
                "version_sha256": group.version_sha256,
                "seed": image.seed,
                "steps": group.steps,
                "annotator": v.annotator or None,
                "oracle": v.oracle or None,
                "liked": v.liked,
                "score": v.score,
                "reason": v.reason or None,
                "reward": image.reward,
                "seconds": group.seconds.get(v.annotator) if v.annotator else None,
                "created_at": v.created_at,
            }


def unpaired_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """TRL's unpaired preference: one row an image that people like or dislike."""
    for liked, images in zip((True, False), likes(group), strict=True):
        for image in images:
            yield {"prompt": group.prompt, "completion": reference(group, image), "label": liked}


def preference_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """TRL's preference: every liked image of the group against every disliked one."""
    liked, disliked = likes(group)
    for chosen in liked:
        for rejected in disliked:
            yield {
                "prompt": group.prompt,
                "chosen": reference(group, chosen),
                "rejected": reference(group, rejected),
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
                "created_at": max(v0.created_at, v1.created_at),
                "has_label": True,
                "image_0_uid": image_uid(group, first),
                "image_0_url": reference(group, first),
                "image_1_uid": image_uid(group, second),
                "image_1_url": reference(group, second),
                "jpg_0": reference(group, first),
                "jpg_1": reference(group, second),
                "label_0": float(v0.liked),
                "label_1": float(v1.liked),
                "model_0": f"version-{group.version}",
                "model_1": f"version-{group.version}",
                "ranking_id": group.id,
                "user_id": number(who),
                "num_example_per_prompt": len(pairs),
            }


def hpd_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """HPDv2's test split, a row a group: ranks by reward, 1 is the best and equal rewards share one."""
    decided = [i for i in group.images if i.reward is not None]
    if not decided:
        return
    yield {
        "prompt": group.prompt,
        "image_path": [reference(group, i) for i in decided],
        "rank": _ranks([i.reward for i in decided]),
        "human_preference": [i.reward for i in decided],
        "raw_annotations": [
            {"rank": _ranks([float(v.liked) for v in own]), "user_hash": who.removeprefix("person-")}
            for who, own in _complete(group, decided)
        ],
    }


def _ranks(values: list[float]) -> list[int]:
    best_first = sorted(set(values), reverse=True)
    return [best_first.index(v) + 1 for v in values]


def _complete(group: GroupRecord, images: list[ImageRecord]) -> Iterator[tuple[str, list[LabelRecord]]]:
    """The people who labelled each of the images, with their labels in the images' order."""
    for who in group.annotators():
        own = [next((v for v in i.labels if v.annotator == who), None) for i in images]
        if None not in own:
            yield who, own


def labelstudio_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """Label Studio's task: images in `data`, an annotation a person, a prediction an oracle. There is no `completed_by`,
    which must be an account of the Label Studio that imports; who it was stands in each result's `meta`."""
    positions = {i.position: i for i in group.images}
    data = {"prompt": group.prompt, "group": group.id, "version": group.version}
    data |= {f"image_{p}": reference(group, i) for p, i in positions.items()}
    annotations = []
    for who in group.annotators():
        own = [(i, v) for i in group.images for v in i.labels if v.annotator == who]
        moment = max(v.created_at for _image, v in own).isoformat()
        annotations.append(
            {
                "was_cancelled": False,
                "ground_truth": False,
                "lead_time": group.seconds.get(who, 0.0),
                "created_at": moment,
                "updated_at": moment,
                "result": [_choice(i, v) | {"meta": {"annotator": who}} for i, v in own],
            }
        )
    predictions = []
    for oracle in sorted({v.oracle for i in group.images for v in i.labels if v.oracle}):
        own = [(i, v) for i in group.images for v in i.labels if v.oracle == oracle]
        known = [v.score for _image, v in own if v.score is not None]
        predictions.append(
            {
                "model_version": oracle,
                "score": sum(known) / len(known) if known else None,
                "result": [_choice(i, v) for i, v in own],
            }
        )
    yield {"id": group.id, "data": data, "annotations": annotations, "predictions": predictions}


def _choice(image: ImageRecord, label: LabelRecord) -> dict:
    return {
        "id": f"image-{image.position}",
        "from_name": f"like_{image.position}",
        "to_name": f"image_{image.position}",
        "type": "choices",
        "value": {"choices": ["like" if label.liked else "dislike"]},
    }


def labelstudio_config(size: int) -> str:
    """The labelling interface that the tasks belong to, for a Label Studio project's settings."""
    views = "".join(
        f'\n  <Image name="image_{p}" value="$image_{p}"/>\n  <Choices name="like_{p}" toName="image_{p}" choice="single">'
        f'<Choice value="like"/><Choice value="dislike"/></Choices>'
        for p in range(size)
    )
    return f'<View>\n  <Header value="$prompt"/>{views}\n</View>\n'


def _feature(kind: pa.DataType) -> dict:
    """A column's type as `datasets` writes it in a file's metadata."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_timestamp(kind):
        return {"dtype": f"timestamp[{kind.unit}, tz={kind.tz}]", "_type": "Value"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


WHEN = pa.timestamp("us", tz="UTC")
TEXT, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

FORMATS = {
    f.name: f
    for f in (
        Format(
            "labels",
            _("Every label with its provenance; can be imported back"),
            labels_rows,
            pa.schema(
                {
                    "group": INT,
                    "position": INT,
                    "image_uid": TEXT,
                    "image": TEXT,
                    "prompt": TEXT,
                    "metadata": TEXT,
                    "split": TEXT,
                    "version": INT,
                    "version_sha256": TEXT,
                    "seed": INT,
                    "steps": INT,
                    "annotator": TEXT,
                    "oracle": TEXT,
                    "liked": BOOL,
                    "score": FLOAT,
                    "reason": TEXT,
                    "reward": FLOAT,
                    "seconds": FLOAT,
                    "created_at": WHEN,
                }
            ),
            ("image",),
        ),
        Format(
            "unpaired",
            "TRL unpaired preference (KTO)",
            unpaired_rows,
            pa.schema({"prompt": TEXT, "completion": TEXT, "label": BOOL}),
            ("completion",),
        ),
        Format(
            "preference",
            "TRL preference (DPO)",
            preference_rows,
            pa.schema({"prompt": TEXT, "chosen": TEXT, "rejected": TEXT}),
            ("chosen", "rejected"),
        ),
        Format(
            "pickapic",
            "Pick-a-Pic v2",
            pickapic_rows,
            pa.schema(
                {
                    "are_different": BOOL,
                    "best_image_uid": TEXT,
                    "caption": TEXT,
                    "created_at": WHEN,
                    "has_label": BOOL,
                    "image_0_uid": TEXT,
                    "image_0_url": TEXT,
                    "image_1_uid": TEXT,
                    "image_1_url": TEXT,
                    "jpg_0": TEXT,
                    "jpg_1": TEXT,
                    "label_0": FLOAT,
                    "label_1": FLOAT,
                    "model_0": TEXT,
                    "model_1": TEXT,
                    "ranking_id": INT,
                    "user_id": INT,
                    "num_example_per_prompt": INT,
                }
            ),
            ("jpg_0", "jpg_1"),
        ),
        Format(
            "hpd",
            "HPDv2 groups",
            hpd_rows,
            pa.schema(
                {
                    "prompt": TEXT,
                    "image_path": pa.list_(TEXT),
                    "rank": pa.list_(INT),
                    "human_preference": pa.list_(FLOAT),
                    "raw_annotations": pa.list_(pa.struct([("rank", pa.list_(INT)), ("user_hash", TEXT)])),
                }
            ),
        ),
        Format("labelstudio", "Label Studio JSON", labelstudio_rows, None),
    )
}
