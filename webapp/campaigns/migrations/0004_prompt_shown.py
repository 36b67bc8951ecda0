"""How often a prompt was shown becomes a column, so that filling the queue does not count every group."""

from django.db import migrations, models
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce


def count(apps, schema_editor):
    Prompt, Group = apps.get_model("campaigns", "Prompt"), apps.get_model("labelling", "Group")
    made = Group.objects.filter(prompt=OuterRef("pk")).order_by().values("prompt").annotate(n=Count("pk")).values("n")
    Prompt.objects.update(shown=Coalesce(Subquery(made), 0))


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0003_campaigns_in_the_browser"), ("labelling", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="prompt",
            name="shown",
            field=models.PositiveIntegerField(default=0, editable=False, help_text="Groups that were made of it."),
        ),
        migrations.RunPython(count, migrations.RunPython.noop),
    ]
