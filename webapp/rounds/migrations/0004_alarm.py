from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("rounds", "0003_checkpoints_in_a_bucket"),
    ]

    operations = [
        migrations.AddField(
            model_name="traininground",
            name="alarm",
            field=models.TextField(blank=True, db_default="", help_text="Why it stopped early, in a sentence."),
        ),
    ]
