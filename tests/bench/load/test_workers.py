"""The bench of generate workers: its stand-in leaves what the real task does, and its table compares with one worker."""

import pytest

from bench.load.workers import stand_in, table
from webapp.campaigns.services import create_project
from webapp.labelling import generation
from webapp.labelling.models import Group
from webapp.lib import paths, storage
from workers import tasks


@pytest.mark.django_db
def test_the_stand_in_makes_a_ready_group(tmp_path, monkeypatch):
    prompts = [{"prompt": f"{n} stars"} for n in range(4)]
    project = create_project(
        "stars", "Stars", model_dir="x", student_dir=str(tmp_path), prompts=prompts, ready_target=1
    )
    (group,) = generation.top_up(project.pk)
    monkeypatch.setattr(tasks, "_sample", stand_in(0.0))
    tasks.generate_group(group.pk)
    group = Group.objects.get()
    assert group.state == "ready" and group.generations.count() == group.size
    assert storage.store().exists(paths.trajectory(project.pk, group.pk))
    assert all(storage.store().exists(image.image) for image in group.generations.all())


def test_the_table_says_how_far_from_linear():
    lines = [{"workers": 1, "groups_a_minute": 60.0}, {"workers": 4, "groups_a_minute": 216.0}]
    assert table(lines).splitlines()[-1] == "| 4 | 216 | 90% |"
