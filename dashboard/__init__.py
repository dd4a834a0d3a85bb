"""The site: pages, JSON API, sign-in, and operation of an installation."""

from dashboard.celery import app as celery_app

__all__ = ["celery_app"]
