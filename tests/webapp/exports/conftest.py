"""Labelled groups to bring out and back in."""

import pytest

from tests.webapp import acting
from webapp.labelling import scoring


@pytest.fixture
def labelled(project, ready, ann, person):
    """Two people and an oracle over three groups: mixed, all liked, and mixed with a disagreement."""
    project.overlap = 2
    project.save()
    groups = ready(3)
    bob = person("bob")
    for group, anns, bobs in zip(
        groups, ([1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 1, 0]), ([1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]), strict=True
    ):
        acting.submit(ann, project, group, anns)
        acting.submit(bob, project, group, bobs)
    verdicts = [{"score": s, "liked": s > 0.5, "reason": "a reason"} for s in (0.9, 0.1, 0.2, 0.8)]
    scoring.record_oracle_labels(groups[0].pk, "scenes", verdicts)
    return groups


@pytest.fixture
def fetch(client, boss, labelled):
    """fetch(format, container, **filters): the downloaded bytes."""
    client.force_login(boss)

    def get(format, container="", **filters):
        answer = client.get("/p/stars/export/download/", {"format": format, "container": container, **filters})
        assert answer.status_code == 200, answer.content.decode()
        return b"".join(answer.streaming_content)

    return get
