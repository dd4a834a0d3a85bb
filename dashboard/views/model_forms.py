"""Register a model."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from dashboard.access import requires
from dashboard.forms.model import RegisterModelForm
from dashboard.models import Role
from dashboard.views.uploading import upload_context, uploaded
from dashboard.views.writing import cloned, write
from deployments.models import HostingAccount, Operation


@requires(Role.SCIENTIST)
def register_model(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    initial = {**cloned(request, account, "register_model"), **uploaded(request)}
    form = RegisterModelForm(account, request.POST or None, initial=initial)

    def done(operation: Operation) -> str:
        return reverse("get_model", args=[account.name, operation.model_id])

    return write(request, form, "models/register_model.html", done=done, context=upload_context(request))
