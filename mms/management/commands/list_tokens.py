"""`manage.py list_tokens`: the tokens of the bundled MMS."""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from mms.models import Token

COLUMNS = ("number", "account", "name", "scope", "created", "last used", "status")


class Command(BaseCommand):
    """List all tokens, or those of accounts with one name."""

    help = "List the tokens of the bundled MMS with their purpose, last use and status."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", help="only tokens of hosting accounts with this name")

    def handle(self, **options: Any) -> None:
        rows = Token.objects.select_related("account").order_by("pk")
        if options["account"]:
            rows = rows.filter(account__name=options["account"])
        lines = [COLUMNS, *(_line(token) for token in rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
        for line in lines:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _line(token: Token) -> tuple[str, ...]:
    used = _time(token.last_used_at) if token.last_used_at else "never"
    names = _printable(token.account.name), _printable(token.name)
    return str(token.pk), *names, token.scope, _time(token.created_at), used, _status(token)


def _status(token: Token) -> str:
    if token.revoked_at:
        return f"revoked {_time(token.revoked_at)}"
    if token.expires_at is None:
        return "active, never expires"
    return f"{'expired' if token.expires_at <= timezone.now() else 'active until'} {_time(token.expires_at)}"


def _printable(text: str) -> str:
    """Return the text without control characters, which a terminal would interpret."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
