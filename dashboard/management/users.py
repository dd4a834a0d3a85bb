"""The person whom a command is about."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError


def find(name: str) -> Any:
    """The person who signs in as `name`. Raises CommandError."""
    user = get_user_model().objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"Nobody is called {name} here.")
    return user
