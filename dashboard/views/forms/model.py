"""The form that registers a model."""

from django.http import HttpResponse
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.forms.resources.model import RegisterModelForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import handle_operation_form, initial_from_clone
from dashboard.views.forms.uploads import initial_from_upload, upload_context
from deployments.models import HostingAccount, Operation


def _initial_name(request: Request) -> dict[str, str]:
    """Return the name from a link to register a new version of a model, such as `?name=iris`."""
    return {"name": request.GET["name"]} if request.GET.get("name") else {}


@requires(Permission.REGISTER_MODEL, previews=True)
def register_model(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form or a preview; on POST, request the registration."""
    initial = {
        **initial_from_clone(request, account, "register_model"),
        **_initial_name(request),
        **initial_from_upload(request),
    }
    form = RegisterModelForm(account, request.POST or None, initial=initial)

    def success_url(operation: Operation) -> str:
        return reverse("get_model", args=[account.name, operation.model_id])

    return handle_operation_form(
        request, form, "models/register_model.html", success_url=success_url, context=upload_context(request)
    )
