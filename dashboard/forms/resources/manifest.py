"""The form that creates a manifest, and its pickers for models and assets."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Max, Q, QuerySet

from dashboard.catalog.picker import Choice, Picker, make_picker, parse_pks
from dashboard.files import store
from dashboard.forms.fields.text import DescriptionField, check_web_address
from dashboard.forms.resources.operation import OperationForm
from deployments.models import Asset, HostingAccount, RegisteredModel
from deployments.operations import submit
from netguard import safe_yaml

MAX_DESCRIPTION_CHARS = 512
MAX_REQUIREMENTS_CHARS = 100_000
MAX_SCRIPT_BYTES = 1024**2  # the same as in mms.images.plan.check
VERSION = re.compile(r"^v?(\d{1,9})$", re.IGNORECASE)
NO_DRIVER = "none"
BYTE_ORDER_MARK = "\ufeff"  # that editors on Windows put at the start of a file
NOT_FOUND_CODES = ("invalid_choice", "invalid_pk_value")
CODE_ATTRIBUTES = {"rows": 6, "class": "mono", "spellcheck": "false", "autocapitalize": "none"}


def usable_models(account: HostingAccount) -> QuerySet[RegisteredModel]:
    """Return the account's models that exist at the server, newest first."""
    return RegisteredModel.objects.filter(account=account, mms_id__isnull=False, vanished_at=None)


def search_models(rows: QuerySet[RegisteredModel], query: str) -> QuerySet[RegisteredModel]:
    """Filter for rows that match every word of `query` in name or description; `3` or `v3` also match versions."""
    for word in query.split():
        condition = Q(name__has_word=word) | Q(description__has_word=word)
        if version := VERSION.match(word):
            condition |= Q(version=int(version[1]))
        rows = rows.filter(condition)
    return rows.order_by("name", "-version")


def describe_models(rows: Sequence[RegisteredModel]) -> list[Choice]:
    """Return the models as choices; the newest version of each is marked."""
    names = {row.name for row in rows}
    of_account = RegisteredModel.objects.filter(account_id__in={row.account_id for row in rows}, vanished_at=None)
    newest = dict(of_account.filter(name__in=names).order_by().values_list("name").annotate(Max("version")))
    return [
        Choice(
            row.pk,
            str(row),
            " · ".join([*([", ".join(map(str, row.tags))] if row.tags else []), *filter(None, [row.description])]),
            row.created_at or row.added_at,
            "newest" if row.version and row.version == newest.get(row.name) else "",
        )
        for row in rows
    ]


def search_assets(rows: QuerySet[Asset], query: str) -> QuerySet[Asset]:
    """Filter for rows that match every word of `query` in id or address. Sort them by id."""
    for word in query.split():
        rows = rows.filter(Q(name__has_word=word) | Q(url__has_word=word))
    return rows.order_by("name", "-added_at")


def file_name(asset: Asset) -> str:
    """Return the last part of the path of the asset's address, decoded."""
    return unquote(asset.url.partition("?")[0].rpartition("/")[2])


def describe_assets(rows: Sequence[Asset]) -> list[Choice]:
    """Return the assets as choices."""
    return [Choice(row.pk, row.name, f"{file_name(row)} · {row.mime_type}", row.added_at) for row in rows]


def is_script(asset: Asset) -> bool:
    """Return True if the asset is a Python file, so that it can be the driver."""
    return file_name(asset).endswith(".py") or "python" in asset.mime_type


def is_schema(asset: Asset) -> bool:
    """Return True if the asset can define the fields of requests."""
    return not asset.unpack and bool({asset.name, file_name(asset)} & {"schema", "schema.json"})


def is_too_large(asset: Asset) -> bool:
    """Return True if the asset is an uploaded file that is too large for a driver script or a schema."""
    return (store.find_size(asset.url) or 0) > MAX_SCRIPT_BYTES


class CreateManifestForm(OperationForm):
    """Models, assets, driver and runtime of a manifest."""

    kind = "create_manifest"

    models = forms.ModelMultipleChoiceField(
        RegisteredModel.objects.none(),
        error_messages={"required": "Choose at least one model."}
        | dict.fromkeys(NOT_FOUND_CODES, "A selected model no longer exists."),
    )
    assets = forms.ModelMultipleChoiceField(
        Asset.objects.none(),
        required=False,
        error_messages=dict.fromkeys(NOT_FOUND_CODES, "A selected asset no longer exists."),
    )
    driver = forms.CharField(required=False)
    runtime_type = forms.ChoiceField(label="Runtime type", choices=submit.RUNTIME_TYPES)
    pip_requirements = forms.CharField(
        label="Requirements",
        required=False,
        max_length=MAX_REQUIREMENTS_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={**CODE_ATTRIBUTES, "placeholder": "scikit-learn==1.5.2"}),
        help_text="One per line, as in requirements.txt, or the URL of such a file. Pinned versions stay as they are.",
    )
    conda_env_file = forms.CharField(
        label="Conda environment",
        required=False,
        max_length=MAX_REQUIREMENTS_CHARS,
        strip=False,
        widget=forms.Textarea(
            attrs={**CODE_ATTRIBUTES, "placeholder": "dependencies:\n  - python=3.11\n  - pip:\n      - scikit-learn"}
        ),
        help_text="The contents of an environment.yml, or its URL.",
    )
    description = DescriptionField(MAX_DESCRIPTION_CHARS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["models"].queryset = usable_models(self.account)  # type: ignore[attr-defined]
        self.fields["assets"].queryset = Asset.objects.filter(account=self.account)  # type: ignore[attr-defined]

    def make_pickers(self) -> dict[str, Picker]:
        """Return the pickers for models and assets."""
        models = make_picker(
            "models",
            usable_models(self.account),
            noun="model",
            many=True,
            value=self["models"].value(),
            query=self.picker_query("models"),
            search=search_models,
            describe=describe_models,
        )
        assets = make_picker(
            "assets",
            Asset.objects.filter(account=self.account),
            noun="asset",
            many=True,
            value=self["assets"].value(),
            query=self.picker_query("assets"),
            search=search_assets,
            describe=describe_assets,
        )
        return {"models": models, "assets": assets}

    @property
    def selected_driver(self) -> str:
        """The driver to show as selected: the submitted one, or the only Python file among the picked assets."""
        picked = parse_pks(self["assets"].value())
        driver = str(self["driver"].value() or "")
        if driver == NO_DRIVER or set(parse_pks(driver)) & set(picked):
            return driver
        scripts = [asset.pk for asset in Asset.objects.filter(account=self.account, pk__in=picked) if is_script(asset)]
        return str(scripts[0]) if len(scripts) == 1 else ""

    def clean_models(self) -> list[RegisteredModel]:
        """Return the models in the order in which they were picked."""
        return self._in_picked_order("models")

    def clean_assets(self) -> list[Asset]:
        """Return the assets in the order in which they were picked. Raise ValidationError for duplicate ids."""
        assets = self._in_picked_order("assets")
        names = [asset.name for asset in assets]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise ValidationError(f"Two of the selected assets have the ID “{min(duplicates)}”. Keep only one of them.")
        return assets

    def clean_conda_env_file(self) -> str:
        """Return the text or address. Raise ValidationError unless a text is an environment file."""
        text: str = self.cleaned_data["conda_env_file"].removeprefix(BYTE_ORDER_MARK).strip()
        if is_address(text):
            check_web_address(text)
        elif text:
            check_conda(text)
        return text

    def clean_pip_requirements(self) -> str:
        """Return the text without surrounding blank lines. Raise ValidationError for an invalid address."""
        text = str(self.cleaned_data["pip_requirements"]).removeprefix(BYTE_ORDER_MARK).strip()
        if is_address(text):
            check_web_address(text)
        return text

    def clean(self) -> dict[str, Any]:
        """Replace the driver's id by its asset, which must be one of the picked assets."""
        cleaned = super().clean() or self.cleaned_data
        driver = cleaned.get("driver", "")
        assets = {str(asset.pk): asset for asset in cleaned.get("assets", [])}
        cleaned["driver"] = assets.get(driver)
        if driver and driver != NO_DRIVER and driver not in assets and "assets" in cleaned:
            self.add_error("driver", "The asset marked as the driver script isn’t selected. Mark another one.")
        elif not driver and any(map(is_script, assets.values())):
            self.add_error(
                "driver", "Mark the asset with init() and run() as the driver script, or choose “no driver”."
            )
        self._check_sizes(cleaned)
        return cleaned

    def _check_sizes(self, cleaned: dict[str, Any]) -> None:
        """Reject uploads that the server would refuse when it builds an image."""
        driver = cleaned.get("driver")
        if driver and is_too_large(driver):
            reason = f"The driver script “{driver.name}” is larger than 1 MB."
            self.add_error("driver", f"{reason} Move its data to a model or to another asset.")
        for asset in filter(is_schema, cleaned.get("assets", [])):
            if is_too_large(asset):
                self.add_error("assets", f"The schema “{asset.name}” is larger than 1 MB. Shorten it.")

    def notes(self) -> list[str]:
        """Point out a missing driver."""
        if self.cleaned_data["driver"]:
            return []
        return ["Without a driver script, an image built from this manifest can’t answer requests."]

    def _in_picked_order(self, name: str) -> list[Any]:
        rows = {row.pk: row for row in self.cleaned_data[name]}
        return [rows[pk] for pk in parse_pks(self[name].value()) if pk in rows]


def is_address(text: str) -> bool:
    """Return True if the text is the address of a file, not its content."""
    return text.lower().startswith(("http://", "https://")) and len(text.split()) == 1


def check_conda(text: str) -> None:
    """Raise ValidationError unless `text` is a YAML mapping."""
    try:
        content = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise ValidationError(f"This file {reason}.".replace("'", "’")) from None
    if not isinstance(content, dict):
        raise ValidationError("An environment file needs keys such as “dependencies:”.")
