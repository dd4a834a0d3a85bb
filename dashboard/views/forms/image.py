"""The form that builds an image."""

from django.http import HttpResponse
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.forms.resources.image import CreateImageForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import (
    handle_operation_form,
    initial_from_clone,
    initial_from_query,
    render_picker_rows,
)
from deployments.models import HostingAccount, Operation


@requires(Permission.CREATE_IMAGE, previews=True)
def create_image(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form, a part of its picker (?part=), or a preview; on POST, request the image."""
    if request.GET.get("part"):
        return render_picker_rows(request, CreateImageForm(account, request.GET))
    initial = {**initial_from_clone(request, account, "create_image"), **initial_from_query(request, "manifest")}
    form = CreateImageForm(account, request.POST or None, initial=initial)

    def success_url(operation: Operation) -> str:
        return reverse("get_image", args=[account.name, operation.image_id])

    return handle_operation_form(request, form, "images/create_image.html", success_url=success_url)
