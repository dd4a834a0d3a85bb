"""A password for a command: from standard input, or asked for on a terminal."""

import getpass
import sys
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError


def read(user: Any, from_stdin: bool) -> str:
    """The password that was typed, if it is one for `user`. Raises CommandError."""
    password = _line() if from_stdin else _asked()
    if not password:
        raise CommandError("An empty password is none; nothing was changed.")
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None
    return password


def _line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _asked() -> str:
    if not sys.stdin.isatty():
        raise CommandError("There is no terminal to ask for a password on: pass it with --password-stdin.")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Again: "):
        raise CommandError("The two passwords differ; nothing was changed.")
    return password
