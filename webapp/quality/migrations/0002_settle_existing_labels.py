"""Labels given before there was a consensus count at once: each labelled group gets its row, nobody being measured yet."""

from django.db import migrations

from common.signal import has_signal
from webapp.quality.consensus import Vote, reward

CHUNK = 500


def settle(apps, schema_editor):
    Group, Generation = apps.get_model("labelling", "Group"), apps.get_model("labelling", "Generation")
    Label, Consensus = apps.get_model("labelling", "Label"), apps.get_model("quality", "Consensus")
    last = 0
    while True:
        groups = dict(
            Group.objects.filter(pk__gt=last, generations__labels__isnull=False)
            .distinct()
            .order_by("pk")
            .values_list("pk", "project_id")[:CHUNK]
        )
        if not groups:
            return
        labels = {}
        for label in Label.objects.filter(generation__group__in=groups):
            labels.setdefault(label.generation_id, []).append(label)
        images = {}
        for pk, group in Generation.objects.filter(group__in=groups).order_by("position").values_list("pk", "group_id"):
            images.setdefault(group, []).append(labels.get(pk, []))
        made = []
        for group, project in groups.items():
            found = [label for image in images[group] for label in image]
            rewards = [
                reward(
                    votes=[Vote(v.liked) for v in image if v.annotator_id is not None],
                    scores=[float(v.liked) if v.score is None else v.score for v in image if v.annotator_id is None],
                )
                for image in images[group]
            ]
            made.append(
                Consensus(
                    group_id=group,
                    project_id=project,
                    rewards=rewards,
                    signal=has_signal(rewards),
                    people=len({v.annotator_id for v in found if v.annotator_id is not None}),
                    labelled_at=max(v.created_at for v in found),
                )
            )
        Consensus.objects.bulk_create(made)
        last = max(groups)


class Migration(migrations.Migration):
    dependencies = [("quality", "0001_initial"), ("labelling", "0001_initial")]
    operations = [migrations.RunPython(settle, migrations.RunPython.noop)]
