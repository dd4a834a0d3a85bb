"""`manage.py rotate_keys`: re-encrypt every stored secret with the current SECRET_KEY."""

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
    help = "Re-encrypt every stored secret with SECRET_KEY. Set SECRET_KEY_FALLBACKS to the previous key."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data_dir.require_finished_restore()
            data_dir.require_recorded_database()
            store.store_former_keys()
            rotation = rotate_keys.rotate()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"A database error stopped this: {str(error).strip()}. Run it again.") from None
        count = rotation.reencrypted
        record_entry("rotate_keys", actor="the operator of the site", after={"renewed": count}, via="command")
        self.stdout.write(f"Re-encrypted {pluralize(count, 'secret')} of {rotation.values} with SECRET_KEY.")
        if rotation.undecryptable:
            self.stderr.write("These can't be decrypted with any known key (table, column, row). Enter them again:")
            self.stderr.writelines(f"  {place}\n" for place in rotation.undecryptable)
            raise CommandError("Keep SECRET_KEY_FALLBACKS, or add the missing key to it, and run this again.")
        if settings.SECRET_KEY_FALLBACKS:
            self.stdout.write(
                "The previous key is no longer needed. Remove it from SECRET_KEY_FALLBACKS and restart the site. "
                "Users who signed in with the previous key have to sign in again."
            )
        else:
            self.stdout.write("SECRET_KEY_FALLBACKS is empty, so there is nothing to remove.")
