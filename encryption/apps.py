"""Django application configuration."""

from django.apps import AppConfig


class EncryptionConfig(AppConfig):
    """The application's configuration."""

    name = "encryption"
