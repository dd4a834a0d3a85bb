"""All URLs of the site. Their names are the verbs and nouns of the reference."""

from django.urls import include, path

from dashboard.access.guards import anyone
from dashboard.api import routes
from dashboard.views import home
from dashboard.views.auth import oidc, setup_link, sign_in, tokens, two_factor, your_account
from dashboard.views.forms import asset, console, image, manifest, model, operation, service
from dashboard.views.resources import assets, images, logs, manifests, models, operations, services
from dashboard.views.settings import clusters, members, permissions, registries, server
from dashboard.views.site import audit, health, system_status
from dashboard.views.site import people as people_list

handler400 = "dashboard.views.errors.not_understood"
handler500 = "dashboard.views.errors.broken"

models_urls = [
    path("models/", models.list_models, name="list_models"),
    path("models/new/", model.register_model, name="register_model"),
    path("models/<int:pk>/", models.get_model, name="get_model"),
]
assets_urls = [
    path("assets/", assets.list_assets, name="list_assets"),
    path("assets/new/", asset.add_asset, name="add_asset"),
    path("assets/<int:pk>/", assets.get_asset, name="get_asset"),
]
manifests_urls = [
    path("manifests/", manifests.list_manifests, name="list_manifests"),
    path("manifests/new/", manifest.create_manifest, name="create_manifest"),
    path("manifests/<int:pk>/", manifests.get_manifest, name="get_manifest"),
]
images_urls = [
    path("images/", images.list_images, name="list_images"),
    path("images/new/", image.create_image, name="create_image"),
    path("images/<int:pk>/", images.get_image, name="get_image"),
    path("images/<int:pk>/log/", logs.image_log, name="image_log"),
]
services_urls = [
    path("services/", services.list_services, name="list_services"),
    path("services/new/", service.create_service, name="create_service"),
    path("services/<int:pk>/", services.get_service, name="get_service"),
    path("services/<int:pk>/update/", service.update_service, name="update_service"),
    path("services/<int:pk>/delete/", service.delete_service, name="delete_service"),
    path("services/<int:pk>/test/", console.test_service, name="test_service"),
    path("services/<int:pk>/key/", console.show_key, name="show_key"),
    path("services/<int:pk>/log/", logs.service_log, name="service_log"),
]
operations_urls = [
    path("operations/", operations.list_operations, name="list_operations"),
    path("operations/<uuid:pk>/", operations.get_operation, name="get_operation"),
    path("operations/<uuid:pk>/retry/", operation.retry_operation, name="retry_operation"),
    path("operations/<uuid:pk>/clone/", operation.clone_operation, name="clone_operation"),
    path("operations/<uuid:pk>/cancel/", operation.cancel_operation, name="cancel_operation"),
    path("operations/<uuid:pk>/settle/", operation.settle_operation, name="settle_operation"),
    path("operations/<uuid:pk>/resume/", operation.resume_operation, name="resume_operation"),
    path("operations/<uuid:pk>/log/", logs.operation_log, name="operation_log"),
    path("refresh/", operation.refresh, name="refresh"),
]
members_urls = [
    path("roles/", permissions.see_roles, name="see_roles"),
    path("members/", members.list_members, name="list_members"),
    path("members/<int:pk>/", members.change_member, name="change_member"),
    path("members/<int:pk>/remove/", members.remove_member, name="remove_member"),
]
settings_urls = [
    path("settings/", server.change_server, name="change_server"),
    path("settings/test/", server.test_server, name="test_server"),
    path("pause/end/", server.end_pause, name="end_pause"),
    path("settings/delete/", server.delete_account, name="delete_account"),
    path("settings/registries/", registries.list_registries, name="list_registries"),
    path("settings/registries/new/", registries.add_registry, name="add_registry"),
    path("settings/registries/new/test/", registries.test_registry, {"pk": 0}, "test_new_registry"),
    path("settings/registries/<int:pk>/", registries.change_registry, name="change_registry"),
    path("settings/registries/<int:pk>/test/", registries.test_registry, name="test_registry"),
    path("settings/registries/<int:pk>/delete/", registries.delete_registry, name="delete_registry"),
    path("settings/clusters/", clusters.list_clusters, name="list_clusters"),
    path("settings/clusters/new/", clusters.add_cluster, name="add_cluster"),
    path("settings/clusters/new/test/", clusters.test_cluster, {"pk": 0}, "test_new_cluster"),
    path("settings/clusters/<int:pk>/", clusters.change_cluster, name="change_cluster"),
    path("settings/clusters/<int:pk>/test/", clusters.test_cluster, name="test_cluster"),
    path("settings/clusters/<int:pk>/delete/", clusters.delete_cluster, name="delete_cluster"),
]
you_urls = [
    path("you/", your_account.you, name="you"),
    path("you/password/", your_account.change_password, name="change_password"),
    path("you/sessions/end/", your_account.end_other_sessions, name="end_other_sessions"),
    path("you/sessions/<slug:session>/end/", your_account.end_session, name="end_session"),
    path("you/second-factor/", two_factor.switch_on_second_factor, name="switch_on_second_factor"),
    path("you/second-factor/off/", two_factor.switch_off_second_factor, name="switch_off_second_factor"),
    path("you/second-factor/codes/", two_factor.new_recovery_codes, name="new_recovery_codes"),
]
urlpatterns = [
    path("", home.home, name="home"),
    path("sign-in/", sign_in.sign_in, name="sign_in"),
    path("sign-in/code/", two_factor.give_code, name="give_code"),
    path("sign-in/second-factor/", two_factor.require_second_factor, name="require_second_factor"),
    path("sign-in/provider/", oidc.go_to_provider, name="go_to_provider"),
    path("sign-in/provider/return/", oidc.return_from_provider, name="return_from_provider"),
    path("sign-out/", sign_in.sign_out, name="sign_out"),
    *you_urls,
    path("colours/", sign_in.choose_theme, name="choose_theme"),
    path("set-up/<str:token>/", anyone(setup_link.set_up), name="set_up"),
    path("people/", people_list.list_people, name="list_people"),
    path("people/<int:pk>/", people_list.change_person, name="change_person"),
    path("people/<int:pk>/invite/", people_list.invite_person, name="invite_person"),
    path("choose-password/<uidb64>/<token>/", people_list.choose_password, name="choose_password"),
    path("audit/", audit.see_audit, name="see_audit"),
    path("tokens/", tokens.list_tokens, name="list_tokens"),
    path("tokens/new/", tokens.create_token, name="create_token"),
    path("tokens/<int:pk>/revoke/", tokens.revoke_token, name="revoke_token"),
    path("v1/", include(routes.urls)),
    path("doctor/", system_status.doctor, name="doctor"),
    path("healthz", anyone(health.healthz), name="healthz"),
    path("add-account/", server.add_account, name="add_account"),
    path("accounts/<slug:account>/", home.account_home, name="account_home"),
    path(
        "accounts/<slug:account>/",
        include(
            [
                *models_urls,
                *assets_urls,
                *manifests_urls,
                *images_urls,
                *services_urls,
                *operations_urls,
                *members_urls,
                *settings_urls,
            ]
        ),
    ),
]
