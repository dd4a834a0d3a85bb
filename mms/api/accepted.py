"""The answer to what takes time."""

from mms.api.http import Request, Response
from mms.models import Operation


def accepted(request: Request, operation: Operation) -> Response:
    """202, empty. The reference names the operation in x-ms-request-id; clients of 2017 read Operation-Location."""
    location = f"{request.account_url}/operations/{operation.id}"
    return Response(202, headers={"x-ms-request-id": str(operation.id), "Operation-Location": location})
