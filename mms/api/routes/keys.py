from uuid import UUID

from mms.api import answers, schemas
from mms.api.http import Request, Response, Route
from mms.api.routes.services import find, live
from mms.keys import new_key
from mms.models import Service
from mms.services import publish_route


def get_keys(request: Request, id: UUID) -> Response:
    return _keys(find(request, id, live(request)))


def regenerate_keys(request: Request, id: UUID) -> Response:
    """A new key in the place named by keyType; both where none is named, as the clients of 2017 ask for it."""
    wanted = request.read(schemas.RegenerateKeys) if request.body.strip() else schemas.RegenerateKeys()
    service = find(request, id, live(request))
    if wanted.key_type != "Secondary":
        service.primary_key = new_key()
    if wanted.key_type != "Primary":
        service.secondary_key = new_key()
    service.save(update_fields=["primary_key", "secondary_key"])
    publish_route(service)
    return _keys(service)


def _keys(service: Service) -> Response:
    return Response(
        body=answers.Keys(primary_key=service.primary_key or "", secondary_key=service.secondary_key or ""),
        headers={"cache-control": "no-store"},
    )


ROUTES = [
    Route("GET", "services/{id}/keys", get_keys, "Get the scoring keys", answers.Keys, extension=True),
    Route(
        "POST",
        "services/{id}/regenerateKeys",
        regenerate_keys,
        "Replace the scoring keys",
        answers.Keys,
        body=schemas.RegenerateKeys,
        extension=True,
    ),
]
