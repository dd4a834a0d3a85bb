from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from mms.models import Token

HEADS = ("number", "account", "name", "scope", "made", "last use", "state")


class Command(BaseCommand):
    help = "List the tokens of the bundled MMS: what each is for, when it was last used, and whether it is active."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", help="only tokens of hosting accounts with this name")

    def handle(self, **options: Any) -> None:
        rows = Token.objects.select_related("account").order_by("pk")
        if options["account"]:
            rows = rows.filter(account__name=options["account"])
        lines = [HEADS, *(_line(token) for token in rows)]
        widths = [max(len(line[at]) for line in lines) for at in range(len(HEADS))]
        for line in lines:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _line(token: Token) -> tuple[str, ...]:
    used = _time(token.last_used_at) if token.last_used_at else "never"
    names = _plain(token.account.name), _plain(token.name)
    return str(token.pk), *names, token.scope, _time(token.created_at), used, _state(token)


def _state(token: Token) -> str:
    if token.revoked_at:
        return f"revoked {_time(token.revoked_at)}"
    if token.expires_at is None:
        return "active, never expires"
    return f"{'expired' if token.expires_at <= timezone.now() else 'active until'} {_time(token.expires_at)}"


def _plain(text: str) -> str:
    """Somebody's text, with nothing in it that steers a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
