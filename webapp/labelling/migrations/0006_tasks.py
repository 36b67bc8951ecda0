"""Leases stay when they run out, and name their group by something that tells nothing of it."""

from django.conf import settings
from django.db import migrations, models
from django.db.models import F, Q
from django.db.models.functions import Cast


def name_by_number(apps, schema_editor):
    """Pages that are open keep the names they have, so that answers on their way still arrive."""
    leases = apps.get_model("labelling", "Lease").objects
    leases.update(task=Cast(F("group_id"), models.CharField(max_length=32)))


class Migration(migrations.Migration):
    dependencies = [
        ("labelling", "0005_group_chance"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="lease",
            name="task",
            field=models.CharField(
                default="", help_text="The name the person knows the group by; it tells nothing of it.", max_length=32
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="lease",
            name="decided",
            field=models.BooleanField(db_default=False, default=False, help_text="The person is through with it."),
        ),
        migrations.RunPython(name_by_number, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="lease",
            index=models.Index(condition=Q(("decided", False)), fields=["user", "id"], name="undecided_leases"),
        ),
        migrations.AddConstraint(
            model_name="lease", constraint=models.UniqueConstraint(fields=("user", "task"), name="one_task")
        ),
    ]
