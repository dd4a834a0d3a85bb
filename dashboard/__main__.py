"""Command line of the site, for `manage.py`, `model-management-dashboard` and `python -m dashboard`."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    """Run the command named in `sys.argv`. Exit with one line of text if a setting is invalid."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:  # the message names the setting, so a traceback adds nothing
        sys.exit(str(error))


if __name__ == "__main__":
    main()
