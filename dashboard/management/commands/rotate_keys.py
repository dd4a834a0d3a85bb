"""`manage.py rotate_keys`: encrypt every stored secret with the present SECRET_KEY, so that the earlier one may go."""

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from dashboard.audit.record import record_entry
from dashboard.files import store
from dashboard.ops import rotate_keys
from dashboard.ops.doctor.finding import pluralize
from dashboard.ops.startup import data_dir


class Command(BaseCommand):
    help = "Encrypts every stored secret anew with SECRET_KEY; SECRET_KEY_FALLBACKS names the key until now."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data_dir.refuse_half_a_restore()
            data_dir.refuse_another_database()
            store.store_former_keys()
            done = rotate_keys.rotate()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"The database stopped this: {str(error).strip()}. Run it again.") from None
        record_entry("rotate_keys", actor="whoever runs the site", after={"renewed": done.renewed}, via="command")
        self.stdout.write(f"{pluralize(done.renewed, 'secret')} of {done.values} encrypted anew with SECRET_KEY.")
        if done.lost:
            self.stderr.write("No key that is known here opens these (table, column, row); enter them again:")
            self.stderr.writelines(f"  {place}\n" for place in done.lost)
            raise CommandError("Keep SECRET_KEY_FALLBACKS, or add the key that is missing to it, and run this again.")
        if settings.SECRET_KEY_FALLBACKS:
            self.stdout.write(
                "The earlier key is needed no more for these: take it out of SECRET_KEY_FALLBACKS and start the site "
                "again. Who is signed in by then with the earlier key has to sign in anew."
            )
        else:
            self.stdout.write("SECRET_KEY_FALLBACKS names no earlier key: there is nothing to take out.")
