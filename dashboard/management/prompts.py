"""Password prompt for management commands."""

import getpass
import sys

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError


def read_password(user: User, from_stdin: bool) -> str:
    """Return a password from standard input or a terminal. Raises CommandError if it isn't valid for the user."""
    password = _read_line() if from_stdin else _prompt()
    if not password:
        raise CommandError("The password is empty. Nothing was changed.")
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None
    return password


def _read_line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _prompt() -> str:
    if not sys.stdin.isatty():
        raise CommandError("Can't prompt for a password without a terminal. Pass it with --password-stdin.")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Again: "):
        raise CommandError("The passwords don't match. Nothing was changed.")
    return password
