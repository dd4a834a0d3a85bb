"""Django's configuration of the dashboard."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """The dashboard's Django app."""

    name = "dashboard"
