"""All routes of the API, one module for each noun."""

from mms.api.http import Route
from mms.api.routes import images, keys, manifests, models, operations, services

ROUTES: list[Route] = [
    *models.ROUTES,
    *manifests.ROUTES,
    *images.ROUTES,
    *services.ROUTES,
    *keys.ROUTES,
    *operations.ROUTES,
]
