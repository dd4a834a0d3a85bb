"""The Celery application: wiring of the workers and of the periodic tasks."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

app = Celery("dashboard")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["deployments", "mms"])
app.conf.beat_schedule = {
    "poll-operations": {"task": "deployments.poll_operations", "schedule": 1.0, "options": {"expires": 2}},
    "sweep-operations": {"task": "deployments.sweep_operations", "schedule": 10.0, "options": {"expires": 20}},
    "refresh-mirrors": {"task": "deployments.refresh_mirrors", "schedule": 5.0, "options": {"expires": 10}},
    "watch-services": {"task": "mms.watch_services", "schedule": 2.0, "options": {"expires": 4}},
    "sweep-mms-operations": {"task": "mms.sweep_operations", "schedule": 10.0, "options": {"expires": 20}},
}
