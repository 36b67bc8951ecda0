"""Leases stay when they run out, and name their group by something that tells nothing of it. Those that are there, and
those that the old version still makes, have no name: their pages know the number, and answers on their way still arrive."""

from django.conf import settings
from django.db import migrations, models
from django.db.models import Q


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
                blank=True,
                db_default="",
                default="",
                help_text="The name the person knows the group by; it tells nothing of it. Without one it is the number.",
                max_length=32,
            ),
        ),
        migrations.AddField(
            model_name="lease",
            name="decided",
            field=models.BooleanField(db_default=False, default=False, help_text="The person is through with it."),
        ),
        migrations.AddIndex(
            model_name="lease",
            index=models.Index(condition=Q(("decided", False)), fields=["user", "id"], name="undecided_leases"),
        ),
        migrations.AddIndex(model_name="lease", index=models.Index(fields=["user", "task"], name="lease_tasks")),
    ]
