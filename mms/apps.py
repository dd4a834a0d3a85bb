"""Django configuration of the bundled MMS."""

from django.apps import AppConfig


class MmsConfig(AppConfig):
    """The app `mms`."""

    name = "mms"
