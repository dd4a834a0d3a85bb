"""The response to a request that starts an operation."""

from mms.api.http import Request, Response
from mms.models import Operation


def accepted(request: Request, operation: Operation) -> Response:
    """Return an empty 202 with the operation's ID, as in the API reference, and its URL, for clients of 2017."""
    location = f"{request.account_url}/operations/{operation.id}"
    return Response(202, headers={"x-ms-request-id": str(operation.id), "Operation-Location": location})
