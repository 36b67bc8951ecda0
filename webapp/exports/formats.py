"""The export formats: what each is for, its columns' types, its files. docs/data-formats.md says who reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pyarrow as pa
from django.utils.translation import gettext_lazy as _

from webapp.exports import rows, tools
from webapp.exports.records import GroupRecord, ImageRecord
from webapp.exports.rows import Reference

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the layout of `datasets.Image`
TABLE = ("jsonl", "csv", "parquet", "parquet-images", "zip-jsonl", "zip-csv", "zip-parquet")
LIST = ("json", "zip-json")


def in_archive(group: GroupRecord, image: ImageRecord) -> str | None:
    """An image's path in an archive; None when its file is gone."""
    return f"images/{group.id}/{image.position}.webp" if image.file else None


def _local_file(group: GroupRecord, image: ImageRecord) -> str:
    """The address by which Label Studio serves a file below its LOCAL_FILES_DOCUMENT_ROOT."""
    return "/data/local-files/?d=" + quote(in_archive(group, image))


@dataclass(frozen=True)
class Format:
    """A format: its rows, its columns' types, and what an image is in it."""

    name: str
    label: str
    help: str
    rows: Callable[[GroupRecord, Reference], Iterator[dict]]
    schema: pa.Schema | None = None  # None: one JSON list
    containers: tuple[str, ...] = TABLE  # the first is the usual one
    images: tuple[str, ...] = ()  # columns that hold an image
    binary: bool = False  # images inside are plain bytes; without them the columns are left out
    whole: bool = False  # rows whose image is gone stay, without it
    file: str = "metadata"  # the data file in an archive, without its ending; `imagefolder` looks for this name
    reference: Reference = in_archive  # how a row names an image of the archive
    inline: bool = False  # images are data URIs in an archive too
    beside: Callable[[], dict[str, str]] = dict  # other files of an archive: text by name

    def columns(self, container: str) -> dict[str, str]:
        """What each column that the file has is called there. In an archive, an image's column has the name by which
        `datasets` finds the file."""
        if container.startswith("zip-"):
            found = {name: "file_name" if name == "image" else f"{name}_file_name" for name in self.images}
            return {name: found.get(name, name) for name in self.schema.names}
        left_out = self.images if self.binary and container != "parquet-images" else ()
        return {name: name for name in self.schema.names if name not in left_out}

    def schema_of(self, container: str) -> pa.Schema:
        """The types of these columns; for images inside, with the note from which `datasets` knows them."""
        fields = [pa.field(name, self.schema.field(old).type) for old, name in self.columns(container).items()]
        if container != "parquet-images":
            return pa.schema(fields)
        kind = pa.binary() if self.binary else IMAGE
        fields = [pa.field(f.name, kind) if f.name in self.images else f for f in fields]
        note = {"huggingface": json.dumps({"info": {"features": {f.name: _feature(f.type) for f in fields}}})}
        return pa.schema(fields, metadata=note)


def _feature(kind: pa.DataType) -> dict:
    """A column's type as `datasets` writes it in a file's metadata."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_timestamp(kind):
        return {
            "dtype": f"timestamp[{kind.unit}, tz={kind.tz}]" if kind.tz else f"timestamp[{kind.unit}]",
            "_type": "Value",
        }
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


TEXT, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

FORMATS = {
    f.name: f
    for f in (
        Format(
            "labels",
            _("Labels with their provenance"),
            _("One row a label, with all that is known of it; the only format that can be imported back."),
            rows.labels_rows,
            pa.schema(
                {
                    "group": INT,
                    "position": INT,
                    "image_uid": TEXT,
                    "image": TEXT,
                    "prompt": TEXT,
                    "metadata": TEXT,
                    "input_image": TEXT,
                    "split": TEXT,
                    "origin": TEXT,
                    "version": INT,
                    "version_sha256": TEXT,
                    "seed": INT,
                    "width": INT,
                    "height": INT,
                    "steps": INT,
                    "inclusion": FLOAT,
                    "annotator": TEXT,
                    "oracle": TEXT,
                    "liked": BOOL,
                    "score": FLOAT,
                    "reason": TEXT,
                    "box": TEXT,
                    "reward": FLOAT,
                    "seconds": FLOAT,
                    "created_at": pa.timestamp("us", tz="UTC"),
                }
            ),
            images=("image",),
            whole=True,
        ),
        Format(
            "unpaired",
            _("Liked and disliked images"),
            _("One row an image with its caption, for Diffusion-KTO; a folder for imagefolder of datasets."),
            rows.unpaired_rows,
            pa.schema({"image": TEXT, "caption": TEXT, "label": BOOL}),
            images=("image",),
        ),
        Format(
            "preference",
            _("Pairs by consensus"),
            _("A liked against a disliked image of one prompt, for Diffusion-DPO and diffusers' DPO script."),
            rows.preference_rows,
            pa.schema(
                {
                    "caption": TEXT,
                    "image_0_url": TEXT,
                    "image_1_url": TEXT,
                    "jpg_0": TEXT,
                    "jpg_1": TEXT,
                    "label_0": FLOAT,
                    "label_1": FLOAT,
                }
            ),
            images=("jpg_0", "jpg_1"),
            binary=True,
        ),
        Format(
            "pickapic",
            "Pick-a-Pic v2",
            _("The pairs as each person decided them, in the columns and types of Pick-a-Pic v2."),
            rows.pickapic_rows,
            pa.schema(
                {
                    "are_different": BOOL,
                    "best_image_uid": TEXT,
                    "caption": TEXT,
                    "created_at": pa.timestamp("ns"),
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
            images=("jpg_0", "jpg_1"),
            binary=True,
        ),
        Format(
            "hpd-train",
            "HPDv2, train.json",
            _("The pairs by consensus, as HPSv2 is trained on them."),
            rows.hpd_train_rows,
            containers=LIST,
            file="train",
        ),
        Format(
            "hpd-test",
            "HPDv2, test.json",
            _("Rankings of groups and each person's own, as HPSv2 is evaluated on them."),
            rows.hpd_test_rows,
            containers=LIST,
            file="test",
        ),
        Format(
            "imagereward",
            "ImageReward",
            _("Rankings of groups, as ImageReward is trained and tested on them."),
            rows.imagereward_rows,
            containers=LIST,
            file="train",
        ),
        Format(
            "labelstudio",
            "Label Studio",
            _("A task an image: people's answers as annotations, the oracles' as predictions."),
            tools.labelstudio_rows,
            containers=("json-images", "zip-json"),
            file="tasks",
            reference=_local_file,
            beside=lambda: {"labelling-interface.xml": tools.LABELSTUDIO_INTERFACE},
        ),
        Format(
            "argilla",
            "Argilla",
            _("A folder for rg.Dataset.from_disk: an image a record, the consensus as its suggestion."),
            tools.argilla_rows,
            containers=("zip-json",),
            file="records",
            inline=True,
            beside=tools.argilla_settings,
        ),
    )
}
