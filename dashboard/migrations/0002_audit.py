import django.utils.timezone
from django.db import migrations, models

# Whoever changes the columns of this table later makes the trigger again: on SQLite a table that is remade loses it.
SQLITE = """
CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON dashboard_auditentry
BEGIN SELECT RAISE(ABORT, 'An audit entry is never changed.'); END
"""
POSTGRESQL = [
    """
    CREATE OR REPLACE FUNCTION audit_entries_stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'An audit entry is never changed.'; END $$
    """,
    """
    CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON dashboard_auditentry
    FOR EACH ROW EXECUTE FUNCTION audit_entries_stay()
    """,
]


def protect(apps, schema_editor):
    for statement in POSTGRESQL if schema_editor.connection.vendor == "postgresql" else [SQLITE]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                (
                    "actor",
                    models.CharField(
                        blank=True, help_text="User name, which remains after the user is deleted.", max_length=150
                    ),
                ),
                (
                    "via",
                    models.CharField(
                        default="page", help_text="page, api, command, provider or system.", max_length=16
                    ),
                ),
                ("action", models.CharField(db_index=True, max_length=64)),
                ("account_id", models.BigIntegerField(blank=True, db_index=True, null=True)),
                ("account_name", models.CharField(blank=True, max_length=64)),
                ("target", models.CharField(blank=True, max_length=300)),
                ("address", models.CharField(blank=True, max_length=64)),
                (
                    "result",
                    models.CharField(
                        choices=[("done", "Done"), ("refused", "Refused"), ("failed", "Failed")], max_length=16
                    ),
                ),
                ("before", models.JSONField(blank=True, null=True)),
                ("after", models.JSONField(blank=True, null=True)),
            ],
            options={"ordering": ["-pk"]},
        ),
        migrations.RunPython(protect, migrations.RunPython.noop),
    ]
