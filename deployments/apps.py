"""Django application configuration."""

from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    """The application's configuration."""

    name = "deployments"
