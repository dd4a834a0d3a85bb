"""The whole site on one screen. Names are the verbs and nouns of the reference; /accounts/<account>/ is the prefix."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils.module_loading import import_string


def later(name: str) -> Callable[..., HttpResponse]:
    """The view dashboard.views.<name>, imported at its first call: its module may not be there yet."""

    def view(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        return import_string(f"dashboard.views.{name}")(request, *args, **kwargs)

    return view


models = [
    path("models/", later("models.list_models"), name="list_models"),
    path("models/new/", later("model_forms.register_model"), name="register_model"),
    path("models/<int:pk>/", later("models.get_model"), name="get_model"),
]
assets = [
    path("assets/", later("assets.list_assets"), name="list_assets"),
    path("assets/new/", later("asset_forms.add_asset"), name="add_asset"),
    path("assets/<int:pk>/", later("assets.get_asset"), name="get_asset"),
]
manifests = [
    path("manifests/", later("manifests.list_manifests"), name="list_manifests"),
    path("manifests/new/", later("manifest_forms.create_manifest"), name="create_manifest"),
    path("manifests/<int:pk>/", later("manifests.get_manifest"), name="get_manifest"),
]
images = [
    path("images/", later("images.list_images"), name="list_images"),
    path("images/new/", later("image_forms.create_image"), name="create_image"),
    path("images/<int:pk>/", later("images.get_image"), name="get_image"),
    path("images/<int:pk>/log/", later("logs.image_log"), name="image_log"),
]
services = [
    path("services/", later("services.list_services"), name="list_services"),
    path("services/new/", later("service_forms.create_service"), name="create_service"),
    path("services/<int:pk>/", later("services.get_service"), name="get_service"),
    path("services/<int:pk>/update/", later("service_forms.update_service"), name="update_service"),
    path("services/<int:pk>/delete/", later("service_forms.delete_service"), name="delete_service"),
    path("services/<int:pk>/test/", later("console.test_service"), name="test_service"),
    path("services/<int:pk>/key/", later("console.show_key"), name="show_key"),
    path("services/<int:pk>/log/", later("logs.service_log"), name="service_log"),
]
operations = [
    path("operations/", later("operations.list_operations"), name="list_operations"),
    path("operations/<uuid:pk>/", later("operations.get_operation"), name="get_operation"),
    path("operations/<uuid:pk>/retry/", later("operation_forms.retry_operation"), name="retry_operation"),
    path("operations/<uuid:pk>/clone/", later("operation_forms.clone_operation"), name="clone_operation"),
    path("operations/<uuid:pk>/cancel/", later("operation_forms.cancel_operation"), name="cancel_operation"),
    path("operations/<uuid:pk>/settle/", later("operation_forms.settle_operation"), name="settle_operation"),
    path("operations/<uuid:pk>/resume/", later("operation_forms.resume_operation"), name="resume_operation"),
    path("operations/<uuid:pk>/log/", later("logs.operation_log"), name="operation_log"),
    path("refresh/", later("operation_forms.refresh"), name="refresh"),
]
urlpatterns = [
    path("", later("home.home"), name="home"),
    path("sign-in/", later("people.sign_in"), name="sign_in"),
    path("sign-out/", later("people.sign_out"), name="sign_out"),
    path("colours/", later("people.choose_theme"), name="choose_theme"),
    path("set-up/<str:token>/", later("setup.set_up"), name="set_up"),
    path("healthz", later("health.healthz"), name="healthz"),
    path("set-up/<str:token>/", later("setup.set_up"), name="set_up"),
    path("accounts/<slug:account>/", later("home.account_home"), name="account_home"),
    path("accounts/<slug:account>/", include([*models, *assets, *manifests, *images, *services, *operations])),
]
