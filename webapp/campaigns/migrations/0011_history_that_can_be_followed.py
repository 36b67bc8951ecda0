"""`labels_after` is not used any more. The column stays, for the version before, with a default of the database's."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0010_bounds")]
    operations = [
        migrations.AlterField(
            model_name="project",
            name="labels_after",
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveField(model_name="project", name="labels_after")]
        ),
    ]
