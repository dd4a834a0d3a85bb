"""`manage.py revoke_token`: revokes tokens of the bundled MMS."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from mms.models import Token
from mms.tokens import CACHE_SECONDS, revoke_token


class Command(BaseCommand):
    """Revoke tokens by their numbers."""

    help = "Revoke tokens of the bundled MMS permanently. `list_tokens` shows their numbers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", nargs="+", type=int, help="the token's number in `list_tokens`")

    def handle(self, **options: Any) -> None:
        numbers = options["number"]
        found = Token.objects.select_related("account").in_bulk(numbers)
        if missing := [str(number) for number in numbers if number not in found]:
            raise CommandError(
                f"Token {', '.join(missing)} doesn't exist. No token was revoked. See `list_tokens` for numbers."
            )
        for token in found.values():
            if token.revoked_at:
                self.stdout.write(f"Token {token.pk} ({token.name}) was already revoked.")
                continue
            revoke_token(token)
            self.stdout.write(
                f"Revoked token {token.pk} ({token.name}) of {token.account}. "
                f"This takes effect within {CACHE_SECONDS:g} s."
            )
