"""`manage.py rotate_keys`: re-encrypt every stored secret with the current SECRET_KEY."""

from argparse import ArgumentParser
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
from encryption import check


class Command(BaseCommand):
    help = "Re-encrypt every stored secret with SECRET_KEY. Set SECRET_KEY_FALLBACKS to the previous key."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add --discard-lost."""
        parser.add_argument(
            "--discard-lost",
            action="store_true",
            help="Delete the secrets that can't be decrypted with any known key, so that you can enter them again.",
        )

    def handle(self, *args: Any, discard_lost: bool, **options: Any) -> None:
        try:
            data_dir.require_finished_restore()
            data_dir.require_recorded_database()
            if discard_lost:
                self.discard_lost()
            elif settings.SECRET_KEY_IS_MISSING:
                check.require_key()
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

    def discard_lost(self) -> None:
        """Delete the secrets that can't be decrypted with any known key, and list them."""
        if settings.SECRET_KEY_IS_MISSING:
            check.save_new_key()
            self.stdout.write(f"Created a new key in {check.key_path()}.")
        lost = rotate_keys.discard_lost()
        record_entry("discard_secrets", actor="the operator of the site", after={"lost": len(lost)}, via="command")
        self.stdout.write(f"{pluralize(len(lost), 'secret')} can't be decrypted with any known key.")
        self.stdout.writelines(f"  {place}\n" for place in lost)
        if lost:
            self.stdout.write(
                "They were deleted, except second factors (dashboard_secondfactor): reset those with "
                "reset_second_factor. Enter the tokens, passwords and kubeconfigs of the accounts again. Scoring keys "
                "are fetched again from the servers."
            )
