"""The site: pages, JSON API, sign-in, and the operation of one installation."""

from dashboard.celery import app as celery_app

__all__ = ["__version__", "celery_app"]

# The only place that states the version. The build reads it from this line.
__version__ = "0.1.0"
