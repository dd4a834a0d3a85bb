"""Register a model."""

from django.http import HttpResponse
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.forms.resources.model import RegisterModelForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import cloned, write
from dashboard.views.forms.uploads import upload_context, uploaded
from deployments.models import HostingAccount, Operation


def named(request: Request) -> dict[str, str]:
    """The name in a link that asks for a new version of a model: ?name=iris."""
    return {"name": request.GET["name"]} if request.GET.get("name") else {}


@requires(Permission.REGISTER_MODEL, previews=True)
def register_model(request: Request, account: HostingAccount) -> HttpResponse:
    initial = {**cloned(request, account, "register_model"), **named(request), **uploaded(request)}
    form = RegisterModelForm(account, request.POST or None, initial=initial)

    def done(operation: Operation) -> str:
        return reverse("get_model", args=[account.name, operation.model_id])

    return write(request, form, "models/register_model.html", done=done, context=upload_context(request))
