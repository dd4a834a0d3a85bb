"""The form of a cluster."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from dashboard.forms.fields.secret import SecretField, SecretTextarea, SettingsForm, check_unique_name
from dashboard.forms.settings.server import PLAIN_ATTRIBUTES
from deployments.accounts import kubeconfig
from deployments.models import Cluster
from encryption.fields import readable

CODE_ATTRIBUTES = {"rows": 8, "class": "mono", "spellcheck": "false", "autocapitalize": "none", "autocomplete": "off"}


class ClusterForm(SettingsForm):
    """A cluster that services run on. Its secret is the kubeconfig."""

    credential_field = "kube_config"

    name = forms.CharField(
        max_length=64,
        widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)),
        help_text="The name people see when choosing a cluster.",
    )
    kube_config = SecretField(
        label="Kubeconfig",
        max_length=kubeconfig.MAX_BYTES,
        strip=False,
        widget=SecretTextarea(attrs=CODE_ATTRIBUTES),
        help_text="The whole file, with certificates and token inline. It is read, never executed. A kubeconfig that "
        "names programs or files is rejected.",
    )
    pull_secret = forms.CharField(
        label="Pull secret",
        max_length=200,
        widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)),
        help_text="The name of the cluster’s image pull secret. For the bundled server: local.",
    )
    production = forms.BooleanField(
        label="Production", required=False, help_text="Only operators can deploy, update and delete services here."
    )

    class Meta:
        model = Cluster
        fields = ("name", "pull_secret", "production")

    field_order = ["name", "kube_config", "pull_secret", "production"]

    def destination_of(self, row: Any) -> Any:
        """Return the same value for all rows: a kubeconfig contains its destination."""
        return ()

    def clean_name(self) -> str:
        """Raise ValidationError if another cluster has the name."""
        check_unique_name(self, "cluster")
        return str(self.cleaned_data["name"])

    def clean_kube_config(self) -> str:
        """Return the kubeconfig; "" if it is blank. Raise ValidationError if it can't be used."""
        text = str(self.cleaned_data["kube_config"])
        if text.strip():
            check_kube_config(text)
        return text if text.strip() else ""

    def clean_pull_secret(self) -> str:
        """Raise ValidationError unless it can be the name of a secret."""
        name = str(self.cleaned_data["pull_secret"])
        if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
            raise ValidationError(
                "Enter the name of the secret, not the secret: only letters, digits, dots, hyphens and underscores."
            )
        return name

    def apply_secret(self) -> None:
        """Require a kubeconfig."""
        super().apply_secret()
        if not self.errors and not readable(self.instance, "kube_config"):
            self.add_error("kube_config", "Paste the kubeconfig.")


def check_kube_config(text: str) -> None:
    """Raise ValidationError unless `text` is a usable kubeconfig."""
    try:
        kubeconfig.parse(text)
    except kubeconfig.InvalidKubeconfigError as error:
        raise ValidationError(str(error)) from None
