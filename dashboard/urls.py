"""The whole site on one screen. Names are the verbs and nouns of the reference; /accounts/<account>/ is the prefix."""

from django.urls import include, path

from dashboard.access import anyone
from dashboard.api import routes
from dashboard.views import (
    asset_forms,
    assets,
    audit,
    cluster_forms,
    console,
    doctor,
    health,
    home,
    image_forms,
    images,
    logs,
    manifest_forms,
    manifests,
    members,
    model_forms,
    models,
    operation_forms,
    operations,
    people,
    people_list,
    provider,
    registry_forms,
    roles,
    second_factor,
    server_forms,
    service_forms,
    services,
    setup,
    tokens,
    you,
)

handler400 = "dashboard.views.errors.not_understood"
handler500 = "dashboard.views.errors.broken"

models_urls = [
    path("models/", models.list_models, name="list_models"),
    path("models/new/", model_forms.register_model, name="register_model"),
    path("models/<int:pk>/", models.get_model, name="get_model"),
]
assets_urls = [
    path("assets/", assets.list_assets, name="list_assets"),
    path("assets/new/", asset_forms.add_asset, name="add_asset"),
    path("assets/<int:pk>/", assets.get_asset, name="get_asset"),
]
manifests_urls = [
    path("manifests/", manifests.list_manifests, name="list_manifests"),
    path("manifests/new/", manifest_forms.create_manifest, name="create_manifest"),
    path("manifests/<int:pk>/", manifests.get_manifest, name="get_manifest"),
]
images_urls = [
    path("images/", images.list_images, name="list_images"),
    path("images/new/", image_forms.create_image, name="create_image"),
    path("images/<int:pk>/", images.get_image, name="get_image"),
    path("images/<int:pk>/log/", logs.image_log, name="image_log"),
]
services_urls = [
    path("services/", services.list_services, name="list_services"),
    path("services/new/", service_forms.create_service, name="create_service"),
    path("services/<int:pk>/", services.get_service, name="get_service"),
    path("services/<int:pk>/update/", service_forms.update_service, name="update_service"),
    path("services/<int:pk>/delete/", service_forms.delete_service, name="delete_service"),
    path("services/<int:pk>/test/", console.test_service, name="test_service"),
    path("services/<int:pk>/key/", console.show_key, name="show_key"),
    path("services/<int:pk>/log/", logs.service_log, name="service_log"),
]
operations_urls = [
    path("operations/", operations.list_operations, name="list_operations"),
    path("operations/<uuid:pk>/", operations.get_operation, name="get_operation"),
    path("operations/<uuid:pk>/retry/", operation_forms.retry_operation, name="retry_operation"),
    path("operations/<uuid:pk>/clone/", operation_forms.clone_operation, name="clone_operation"),
    path("operations/<uuid:pk>/cancel/", operation_forms.cancel_operation, name="cancel_operation"),
    path("operations/<uuid:pk>/settle/", operation_forms.settle_operation, name="settle_operation"),
    path("operations/<uuid:pk>/resume/", operation_forms.resume_operation, name="resume_operation"),
    path("operations/<uuid:pk>/log/", logs.operation_log, name="operation_log"),
    path("refresh/", operation_forms.refresh, name="refresh"),
]
members_urls = [
    path("roles/", roles.see_roles, name="see_roles"),
    path("members/", members.list_members, name="list_members"),
    path("members/<int:pk>/", members.change_member, name="change_member"),
    path("members/<int:pk>/remove/", members.remove_member, name="remove_member"),
]
settings_urls = [
    path("settings/", server_forms.change_server, name="change_server"),
    path("settings/test/", server_forms.test_server, name="test_server"),
    path("settings/delete/", server_forms.delete_account, name="delete_account"),
    path("settings/registries/", registry_forms.list_registries, name="list_registries"),
    path("settings/registries/new/", registry_forms.add_registry, name="add_registry"),
    path("settings/registries/new/test/", registry_forms.test_registry, {"pk": 0}, "test_new_registry"),
    path("settings/registries/<int:pk>/", registry_forms.change_registry, name="change_registry"),
    path("settings/registries/<int:pk>/test/", registry_forms.test_registry, name="test_registry"),
    path("settings/registries/<int:pk>/delete/", registry_forms.delete_registry, name="delete_registry"),
    path("settings/clusters/", cluster_forms.list_clusters, name="list_clusters"),
    path("settings/clusters/new/", cluster_forms.add_cluster, name="add_cluster"),
    path("settings/clusters/new/test/", cluster_forms.test_cluster, {"pk": 0}, "test_new_cluster"),
    path("settings/clusters/<int:pk>/", cluster_forms.change_cluster, name="change_cluster"),
    path("settings/clusters/<int:pk>/test/", cluster_forms.test_cluster, name="test_cluster"),
    path("settings/clusters/<int:pk>/delete/", cluster_forms.delete_cluster, name="delete_cluster"),
]
you_urls = [
    path("you/", you.you, name="you"),
    path("you/password/", you.change_password, name="change_password"),
    path("you/sessions/end/", you.end_other_sessions, name="end_other_sessions"),
    path("you/sessions/<slug:session>/end/", you.end_session, name="end_session"),
    path("you/second-factor/", second_factor.switch_on_second_factor, name="switch_on_second_factor"),
    path("you/second-factor/off/", second_factor.switch_off_second_factor, name="switch_off_second_factor"),
    path("you/second-factor/codes/", second_factor.new_recovery_codes, name="new_recovery_codes"),
]
urlpatterns = [
    path("", home.home, name="home"),
    path("sign-in/", people.sign_in, name="sign_in"),
    path("sign-in/code/", second_factor.give_code, name="give_code"),
    path("sign-in/second-factor/", second_factor.require_second_factor, name="require_second_factor"),
    path("sign-in/provider/", provider.go_to_provider, name="go_to_provider"),
    path("sign-in/provider/return/", provider.return_from_provider, name="return_from_provider"),
    path("sign-out/", people.sign_out, name="sign_out"),
    *you_urls,
    path("colours/", people.choose_theme, name="choose_theme"),
    path("set-up/<str:token>/", anyone(setup.set_up), name="set_up"),
    path("people/", people_list.list_people, name="list_people"),
    path("people/<int:pk>/", people_list.change_person, name="change_person"),
    path("people/<int:pk>/invite/", people_list.invite_person, name="invite_person"),
    path("choose-password/<uidb64>/<token>/", people_list.choose_password, name="choose_password"),
    path("audit/", audit.see_audit, name="see_audit"),
    path("tokens/", tokens.list_tokens, name="list_tokens"),
    path("tokens/new/", tokens.create_token, name="create_token"),
    path("tokens/<int:pk>/revoke/", tokens.revoke_token, name="revoke_token"),
    path("v1/", include(routes.urls)),
    path("doctor/", doctor.doctor, name="doctor"),
    path("healthz", anyone(health.healthz), name="healthz"),
    path("add-account/", server_forms.add_account, name="add_account"),
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
