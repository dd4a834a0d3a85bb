"""Django configuration of the bundled MMS."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate, pre_migrate


class MmsConfig(AppConfig):
    """The app `mms`."""

    name = "mms"

    def ready(self) -> None:
        """Drop the triggers of change feeds before migrations, and install them afterwards."""
        pre_migrate.connect(_drop_triggers, sender=self)
        post_migrate.connect(_install_triggers, sender=self)


def _drop_triggers(plan: list[Any], using: str, **_: Any) -> None:
    # SQLite can't rebuild a table that a trigger of another table names.
    from mms import changes

    if any(migration.app_label == "mms" for migration, _ in plan):
        changes.drop_triggers(connections[using])


def _install_triggers(using: str, plan: list[Any] | None = None, **_: Any) -> None:
    from mms import changes, models

    if plan is None:  # flush sends this signal as well
        return
    if models.Collection._meta.db_table not in connections[using].introspection.table_names():
        return  # a reversed migration removed it
    changes.install_triggers(connections[using])
