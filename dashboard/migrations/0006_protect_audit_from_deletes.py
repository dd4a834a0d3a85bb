"""Extend the protection of the audit log from UPDATE to DELETE, REPLACE and TRUNCATE.

Pruning inserts a row into dashboard_auditpruning and removes it in the same transaction. While the row exists, entries
written before its time can be deleted.
"""

from django.db import migrations, models

SQLITE = [
    "CREATE TABLE dashboard_auditpruning (before datetime NOT NULL)",
    """
    CREATE TRIGGER audit_entries_not_deleted BEFORE DELETE ON dashboard_auditentry
    WHEN NOT EXISTS (SELECT 1 FROM dashboard_auditpruning WHERE before > OLD.at)
    BEGIN SELECT RAISE(ABORT, 'Audit entries can''t be deleted. Retention removes them by age.'); END
    """,
    # INSERT OR REPLACE deletes the existing row without running a trigger for DELETE.
    """
    CREATE TRIGGER audit_entries_not_replaced BEFORE INSERT ON dashboard_auditentry
    WHEN EXISTS (SELECT 1 FROM dashboard_auditentry WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'Audit entries can''t be replaced.'); END
    """,
]
SQLITE_REVERSED = [
    "DROP TRIGGER audit_entries_not_replaced",
    "DROP TRIGGER audit_entries_not_deleted",
    "DROP TABLE dashboard_auditpruning",
]
POSTGRESQL = [
    "CREATE TABLE dashboard_auditpruning (before timestamptz NOT NULL)",
    """
    CREATE OR REPLACE FUNCTION audit_entries_not_deleted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
      IF NOT EXISTS (SELECT 1 FROM dashboard_auditpruning WHERE before > OLD.at) THEN
        RAISE EXCEPTION 'Audit entries can''t be deleted. Retention removes them by age.';
      END IF;
      RETURN OLD;
    END $$
    """,
    """
    CREATE TRIGGER audit_entries_not_deleted BEFORE DELETE ON dashboard_auditentry
    FOR EACH ROW EXECUTE FUNCTION audit_entries_not_deleted()
    """,
    """
    CREATE OR REPLACE FUNCTION audit_entries_not_truncated() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
      IF NOT EXISTS (SELECT 1 FROM dashboard_auditpruning WHERE before > now()) THEN
        RAISE EXCEPTION 'The audit log can''t be truncated. Retention removes entries by age.';
      END IF;
      RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER audit_entries_not_truncated BEFORE TRUNCATE ON dashboard_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_not_truncated()
    """,
]
POSTGRESQL_REVERSED = [
    "DROP TRIGGER audit_entries_not_truncated ON dashboard_auditentry",
    "DROP FUNCTION audit_entries_not_truncated()",
    "DROP TRIGGER audit_entries_not_deleted ON dashboard_auditentry",
    "DROP FUNCTION audit_entries_not_deleted()",
    "DROP TABLE dashboard_auditpruning",
]


def protect(apps, schema_editor):
    for statement in POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE:
        schema_editor.execute(statement)


def unprotect(apps, schema_editor):
    for statement in POSTGRESQL_REVERSED if schema_editor.connection.vendor == "postgresql" else SQLITE_REVERSED:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("dashboard", "0005_api_tokens")]

    operations = [
        migrations.AlterField(
            model_name="auditentry",
            name="via",
            field=models.CharField(
                default="page", help_text="page, api, mms, command, provider or system.", max_length=16
            ),
        ),
        migrations.RunPython(protect, unprotect),
    ]
