"""Request bodies of the operations: forms and examples."""

from typing import Any

from django import forms

from dashboard.api.openapi.declare import Body, Fields, Schema
from dashboard.api.openapi.fields import ID, ID_OR_NAME
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.forms.resources.image import CreateImageForm
from dashboard.forms.resources.manifest import NO_DRIVER, CreateManifestForm
from dashboard.forms.resources.model import RegisterModelForm
from dashboard.forms.resources.service import CreateServiceForm, UpdateServiceForm
from deployments.models.operation import Kind

SERVICE: Schema = {**ID_OR_NAME, "description": "The id or the name of the service."}
DRIVER: Schema = {
    "anyOf": [ID, {"const": NO_DRIVER}],
    "description": f'The id of the driver script, one of the assets; or "{NO_DRIVER}".',
}
FILE: Schema = {"type": "string", "description": "The `file` of an upload's response. Send either it or `url`."}
CLUSTER: Schema = {**ID_OR_NAME, "description": "Only for a service whose cluster isn't known."}


def _of_kind(
    kind: Kind, form: type[forms.BaseForm] | None, example: dict[str, Any], schemas: dict[str, Schema] | None = None
) -> Body:
    def fields() -> Fields:
        found: Fields = form.base_fields if form else {}  # type: ignore[attr-defined]
        return found

    known = {"kind": {"const": kind.value}, **(schemas or {})}
    required = frozenset(name for name in known if name in ("kind", "service"))
    name = "".join(word.capitalize() for word in kind.value.split("_"))
    return Body(name, fields, {"kind": kind.value, **example}, required=required, schemas=known)


OPERATIONS = (
    _of_kind(
        Kind.REGISTER_MODEL,
        RegisterModelForm,
        {"name": "iris", "url": "https://files.example/iris.pkl", "tags": ["flowers"]},
        {"file": FILE},
    ),
    _of_kind(
        Kind.CREATE_MANIFEST,
        CreateManifestForm,
        {
            "models": [12],
            "assets": [34],
            "driver": 34,
            "runtime_type": "ScikitPython",
            "pip_requirements": "scikit-learn",
        },
        {"driver": DRIVER},
    ),
    _of_kind(Kind.CREATE_IMAGE, CreateImageForm, {"manifest": 56, "registry": "our registry"}),
    _of_kind(Kind.CREATE_SERVICE, CreateServiceForm, {"name": "iris-live", "image": 78, "cluster": "this machine"}),
    _of_kind(
        Kind.UPDATE_SERVICE,
        UpdateServiceForm,
        {"service": "iris-live", "image": 79},
        {"service": SERVICE, "cluster": CLUSTER},
    ),
    _of_kind(Kind.DELETE_SERVICE, None, {"service": "iris-live"}, {"service": SERVICE}),
)
SETTLE = Body("SettleOperation", lambda: {"send_again": forms.BooleanField()}, {"send_again": True})
ADD_ASSET = Body(
    "AddAsset",
    lambda: AddAssetForm.base_fields,
    {"name": "score-py", "url": "https://files.example/score.py"},
    schemas={"file": FILE},
)
