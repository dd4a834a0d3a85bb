"""Add the submissions of forms, so that one submitted twice has one effect."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0007_trial_write")]

    operations = [
        migrations.CreateModel(
            name="FormSubmission",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user_id", models.BigIntegerField()),
                ("digest", models.CharField(max_length=64)),
                ("location", models.CharField(blank=True, max_length=2000)),
                ("at", models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("user_id", "digest"), name="one_form_submission")]
            },
        ),
    ]
