"""Exports for labelling tools: Label Studio's tasks and Argilla's records, and the settings that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from webapp.exports.records import GroupRecord, LabelRecord
from webapp.exports.rows import Reference, image_uid

LABELSTUDIO_INTERFACE = """<View>
  <Header value="$prompt"/>
  <Image name="image" value="$image"/>
  <Choices name="like" toName="image" choice="single"><Choice value="like"/><Choice value="dislike"/></Choices>
</View>
"""


def labelstudio_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """Label Studio's tasks: one an image, since an interface has places for just so many; an annotation a person, a
    prediction an oracle. There is no `completed_by`, which must be an account of the Label Studio that imports; who it was
    stands in the result's `meta`."""
    for image in group.images:
        yield {
            "data": {
                "image": reference(group, image),
                "prompt": group.prompt,
                "image_uid": image_uid(group, image),
                "group": group.id,
                "position": image.position,
                "origin": group.origin,
                **({} if group.version is None else {"version": group.version}),
            },
            "annotations": [_annotation(group, v) for v in image.labels if v.annotator],
            "predictions": [
                {"model_version": v.oracle, "score": v.score, "result": [_choice(v)]} for v in image.labels if v.oracle
            ],
        }


def _annotation(group: GroupRecord, label: LabelRecord) -> dict:
    moment = label.created_at.isoformat()
    return {
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": group.seconds.get(label.annotator, 0.0) / len(group.images),
        "created_at": moment,
        "updated_at": moment,
        "result": [_choice(label) | {"meta": {"annotator": label.annotator}}],
    }


def _choice(label: LabelRecord) -> dict:
    value = {"choices": ["like" if label.liked else "dislike"]}
    return {"id": "like", "from_name": "like", "to_name": "image", "type": "choices", "value": value}


def argilla_rows(group: GroupRecord, reference: Reference) -> Iterator[dict]:
    """Argilla's records: one an image, and where it is decided the consensus as a suggestion. People's own answers are
    no responses, which must be of accounts of the Argilla that imports; how many there are is in the metadata."""
    for image in group.images:
        people = [v.liked for v in image.labels if v.annotator]
        metadata = {"group": group.id, "likes": sum(people), "dislikes": people.count(False)}
        metadata |= {} if group.version is None else {"version": group.version}
        yield {
            "id": image_uid(group, image),
            "fields": {"image": reference(group, image), "prompt": group.prompt},
            "metadata": metadata | ({} if image.reward is None else {"reward": image.reward}),
            "suggestions": _suggestion(image.reward),
            "responses": {},
            "vectors": {},
        }


def _suggestion(reward: float | None) -> dict:
    if reward is None or reward == 0.5:
        return {}
    value, score = ("like", reward) if reward > 0.5 else ("dislike", 1 - reward)
    return {"rating": {"value": value, "score": score, "agent": "likestep"}}


def argilla_settings(guidelines: str = "") -> dict[str, str]:
    """The files of `.argilla/` beside the records."""

    def named(name: str, title: str, **settings) -> dict:
        return {"name": name, "title": title, "settings": settings}

    options = [{"value": v, "text": v, "description": None} for v in ("like", "dislike")]
    numbers = {"group": "integer", "version": "integer", "likes": "integer", "dislikes": "integer", "reward": "float"}
    settings = {
        "guidelines": guidelines or None,
        "fields": [
            named("image", "Image", type="image") | {"required": True},
            named("prompt", "Prompt", type="text", use_markdown=False) | {"required": True},
        ],
        "questions": [named("rating", "Rating", type="label_selection", options=options) | {"required": True}],
        "vectors": [],
        "metadata": [named(name, name.title(), type=kind) for name, kind in numbers.items()],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }
    return {".argilla/dataset.json": json.dumps({"name": "likestep"}), ".argilla/settings.json": json.dumps(settings)}
