"""Add a table with one row, which /healthz updates to find out whether the database can be written to."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0006_protect_audit_from_deletes")]

    operations = [
        migrations.RunSQL(
            [
                "CREATE TABLE dashboard_trialwrite (at double precision NOT NULL)",
                "INSERT INTO dashboard_trialwrite (at) VALUES (0)",
            ],
            ["DROP TABLE dashboard_trialwrite"],
        )
    ]
