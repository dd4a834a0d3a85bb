"""Create an image."""

from django.http import HttpResponse
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.forms.resources.image import CreateImageForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import chosen_in_link, cloned, picker_rows, write
from deployments.models import HostingAccount, Operation


@requires(Permission.CREATE_IMAGE, previews=True)
def create_image(request: Request, account: HostingAccount) -> HttpResponse:
    if request.GET.get("part"):
        return picker_rows(request, CreateImageForm(account, request.GET))
    initial = {**cloned(request, account, "create_image"), **chosen_in_link(request, "manifest")}
    form = CreateImageForm(account, request.POST or None, initial=initial)

    def done(operation: Operation) -> str:
        return reverse("get_image", args=[account.name, operation.image_id])

    return write(request, form, "images/create_image.html", done=done)
