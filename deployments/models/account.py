"""A hosting account at some MMS server, and the registries and clusters its images and services go to."""

from django.core.validators import RegexValidator
from django.db import models
from encrypted_fields.fields import EncryptedTextField


class HostingAccount(models.Model):
    """One account at one server: where calls go, with which token, and what is known of the far end."""

    name = models.SlugField(max_length=64, unique=True, help_text="How people here call it; part of every page's URL.")
    base_url = models.URLField(help_text="Scheme, host and port of the server, without /api.")
    subscription = models.CharField(max_length=200)
    resource_group = models.CharField(max_length=200)
    hosting_account = models.CharField(max_length=200)
    api_version = models.CharField(max_length=64, default="2017-06-01-privatepreview")
    token = EncryptedTextField(null=True, blank=True)

    # What the worker last saw of the server. Pages read these; nobody else asks the server.
    reached_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, default="")
    error_at = models.DateTimeField(null=True, blank=True)
    token_refused = models.BooleanField(default=False, help_text="The server said 401: polling waits for a new token.")
    not_before = models.DateTimeField(null=True, blank=True, help_text="Retry-After of the server, or our back-off.")
    idempotent = models.BooleanField(
        default=False,
        help_text="The server says that a request sent again with the same client request id has one effect.",
    )
    # When each list was last read in whole.
    models_seen_at = models.DateTimeField(null=True, blank=True)
    manifests_seen_at = models.DateTimeField(null=True, blank=True)
    images_seen_at = models.DateTimeField(null=True, blank=True)
    services_seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def troubled(self) -> bool:
        """Whether something is wrong with the server, or with our token there."""
        return bool(self.error) or self.token_refused

    def replace_token(self, token: str) -> None:
        """Use another bearer token from now on; calls that waited for it go out again."""
        self.token, self.token_refused, self.error, self.error_at, self.not_before = token, False, "", None, None
        self.save(update_fields=["token", "token_refused", "error", "error_at", "not_before"])


class RegistryInfo(models.Model):
    """A registry that images are pushed to. People choose it by name and never see the password."""

    account = models.ForeignKey(HostingAccount, on_delete=models.CASCADE, related_name="registries")
    name = models.CharField(max_length=64)
    location = models.CharField(max_length=400)
    user = models.CharField(max_length=200, blank=True, default="")
    password = EncryptedTextField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["account", "name"], name="registry_name")]

    def __str__(self) -> str:
        return self.name


class Cluster(models.Model):
    """Where services run: the kubeconfig and the pull secret that a create_service call carries."""

    account = models.ForeignKey(HostingAccount, on_delete=models.CASCADE, related_name="clusters")
    name = models.CharField(max_length=64)
    kube_config = EncryptedTextField(null=True, blank=True)
    pull_secret = models.CharField(max_length=200, validators=[RegexValidator(r"^[\w.-]+$")])

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["account", "name"], name="cluster_name")]

    def __str__(self) -> str:
        return self.name
