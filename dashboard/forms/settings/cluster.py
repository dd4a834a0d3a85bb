"""A cluster that services run on."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from dashboard.forms.fields.secret import SecretField, SecretText, SettingsForm, check_unique_name
from dashboard.forms.settings.server import PLAIN
from deployments.accounts import kubeconfig
from deployments.models import Cluster

CODE = {"rows": 8, "class": "mono", "spellcheck": "false", "autocapitalize": "none", "autocomplete": "off"}


class ClusterForm(SettingsForm):
    sealed = "kube_config"

    name = forms.CharField(
        max_length=64,
        widget=forms.TextInput(attrs=dict(PLAIN)),
        help_text="The name people see when choosing a cluster.",
    )
    kube_config = SecretField(
        label="Kubeconfig",
        max_length=kubeconfig.MAX_BYTES,
        strip=False,
        widget=SecretText(attrs=CODE),
        help_text="The whole file, with certificates and token inline. It is read, never executed. A kubeconfig that "
        "names programs or files is rejected.",
    )
    pull_secret = forms.CharField(
        label="Pull secret",
        max_length=200,
        widget=forms.TextInput(attrs=dict(PLAIN)),
        help_text="The name of the cluster’s image pull secret. For the bundled server: local.",
    )
    production = forms.BooleanField(
        label="Production", required=False, help_text="Only operators can deploy, update and delete services here."
    )

    class Meta:
        model = Cluster
        fields = ("name", "pull_secret", "production")

    field_order = ["name", "kube_config", "pull_secret", "production"]

    def place_of(self, row: Any) -> Any:
        """A kubeconfig names its place itself."""
        return ()

    def clean_name(self) -> str:
        check_unique_name(self, "cluster")
        return str(self.cleaned_data["name"])

    def clean_kube_config(self) -> str:
        text = str(self.cleaned_data["kube_config"])
        if text.strip():
            self.read(text)
        return text if text.strip() else ""

    def clean_pull_secret(self) -> str:
        name = str(self.cleaned_data["pull_secret"])
        if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
            raise ValidationError(
                "Enter the name of the secret, not the secret: only letters, digits, dots, hyphens and underscores."
            )
        return name

    def settle_secret(self) -> None:
        super().settle_secret()
        if not self.errors and not self.instance.kube_config:
            self.add_error("kube_config", "Paste the kubeconfig.")

    def read(self, text: str) -> kubeconfig.ClusterAccess:
        try:
            return kubeconfig.parse(text)
        except kubeconfig.InvalidKubeconfigError as error:
            raise ValidationError(str(error)) from None
