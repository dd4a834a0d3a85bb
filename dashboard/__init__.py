"""The site: pages, JSON API, sign-in, and the operation of one installation."""

from dashboard.celery import app as celery_app

__all__ = ["celery_app"]
