"""User lookup for management commands."""

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.management.base import CommandError


def get_user_or_error(name: str) -> User:
    """Return the user with this name. Raises CommandError."""
    user = get_user_model().objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user named {name}.")
    return user
