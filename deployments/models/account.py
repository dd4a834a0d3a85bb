"""Hosting accounts at MMS servers, and the registries and clusters that their images and services use."""

from datetime import datetime
from hashlib import sha256
from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from deployments.models.validators import check_base_url
from encryption.fields import EncryptedTextField, stored


class WithSecret(models.Model):
    """Abstract row with encrypted secrets. Pages never show a secret, only who set it and when."""

    SECRETS: ClassVar[tuple[str, ...]]  # names of the encrypted fields; queries of pages defer them

    secret_set_at = models.DateTimeField(null=True, blank=True)
    secret_set_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        abstract = True

    def record_secret_change(self, by: str) -> None:
        """Record that user `by` set or removed the secret. Doesn't save."""
        self.secret_set_at, self.secret_set_by = timezone.now(), by


class HostingAccount(WithSecret):
    """Hosting account: address and credentials of a server, and its last known condition."""

    SECRETS = ("token", "client_secret")
    FAILURE_FIELDS = ("token_refused", "error", "error_at", "failed_request", "not_before", "refusal_retry_at")

    class SignIn(models.TextChoices):
        TOKEN = "token", "Bearer token"
        ENTRA = "entra", "Entra ID client credentials"

    name = models.SlugField(
        max_length=64, unique=True, help_text="The account's name, which is part of every page's URL."
    )
    base_url = models.CharField(
        max_length=400, validators=[check_base_url], help_text="Scheme, host and port of the server, without /api."
    )
    subscription = models.CharField(max_length=200)
    resource_group = models.CharField(max_length=200)
    hosting_account = models.CharField(max_length=200)
    api_version = models.CharField(max_length=64, default="2017-06-01-privatepreview")
    # Authentication method and its secret; the secret of the other method is removed.
    sign_in = models.CharField(max_length=16, choices=SignIn.choices, default=SignIn.TOKEN)
    token = EncryptedTextField(null=True, blank=True)
    authority = models.CharField(max_length=400, blank=True, default="https://login.microsoftonline.com")
    tenant = models.CharField(max_length=200, blank=True, default="")
    client_id = models.CharField(max_length=200, blank=True, default="")
    client_secret = EncryptedTextField(null=True, blank=True)
    scope = models.CharField(max_length=400, blank=True, default="")

    # Written by workers after each call. Pages read these fields and never call the server.
    reached_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, default="")
    error_at = models.DateTimeField(null=True, blank=True)
    failed_request = models.CharField(
        max_length=100, blank=True, default="", help_text="Request that fails while others succeed."
    )
    token_refused = models.BooleanField(default=False, help_text="The server rejected the credentials with 401.")
    refusal_retry_at = models.DateTimeField(null=True, blank=True, help_text="Next attempt with rejected credentials.")
    not_before = models.DateTimeField(
        null=True, blank=True, help_text="End of the pause: the server's Retry-After, or our back-off."
    )
    idempotent_kinds = models.JSONField(
        default=dict,
        blank=True,
        help_text="Declared idempotency by kind of operation: server and expiry time.",
    )
    # When each list was last read completely.
    models_seen_at = models.DateTimeField(null=True, blank=True)
    manifests_seen_at = models.DateTimeField(null=True, blank=True)
    images_seen_at = models.DateTimeField(null=True, blank=True)
    services_seen_at = models.DateTimeField(null=True, blank=True)
    # Reasons why lists couldn't be read last time, shown to users.
    models_error = models.TextField(blank=True, default="")
    manifests_error = models.TextField(blank=True, default="")
    images_error = models.TextField(blank=True, default="")
    services_error = models.TextField(blank=True, default="")
    # By noun: what identifies the content of the list at its last read, and until when that confirms its rows.
    list_versions = models.JSONField(default=dict, blank=True)
    lists_images = models.BooleanField(
        blank=True, null=True, help_text="False: the server has no list of images, which the API reference allows."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_failing(self) -> bool:
        """Return True if the server is failing as a whole or rejects the account's token."""
        return (bool(self.error) and not self.failed_request) or self.token_refused

    @property
    def has_trouble(self) -> bool:
        """Return True if the server is failing, as a whole or in one request."""
        return bool(self.error) or self.token_refused

    @property
    def next_attempt_at(self) -> datetime | None:
        """Return when the server may be called again, or None if it may be called now."""
        times = [self.not_before, self.refusal_retry_at if self.token_refused else None]
        return max((time for time in times if time and time > timezone.now()), default=None)

    @property
    def credentials(self) -> tuple[str | None, ...]:
        """Return everything that determines the credentials, for comparison. Contains secrets; never log it."""
        if self.sign_in != self.SignIn.ENTRA:
            return self.sign_in, stored(self, "token")
        return self.sign_in, self.authority, self.tenant, self.client_id, stored(self, "client_secret"), self.scope

    def replace_token(self, token: str, by: str = "") -> None:
        """Authenticate with this bearer token from now on, and save. Waiting operations are sent again."""
        self.sign_in, self.token, self.client_secret = self.SignIn.TOKEN, token, None
        self.record_secret_change(by)
        self.clear_failure()
        self.save(update_fields=["sign_in", *self.SECRETS, "secret_set_at", "secret_set_by", *self.FAILURE_FIELDS])
        self.release_queued()

    def clear_failure(self) -> None:
        """Reset the failure fields, so that the server is called without delay. Doesn't save."""
        self.token_refused, self.error, self.error_at, self.failed_request = False, "", None, ""
        self.not_before, self.refusal_retry_at = None, None

    def release_queued(self) -> None:
        """Make queued operations due that are waiting for the end of the account's pause."""
        queued = self.operations.filter(state="queued", next_poll_at__gt=timezone.now())
        queued.update(next_poll_at=timezone.now())

    @property
    def address(self) -> str:
        """Return a digest of everything that determines which account of which server this is."""
        parts = (self.base_url, self.subscription, self.resource_group, self.hosting_account, self.api_version)
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def confirmed_at(self, noun: str) -> datetime | None:
        """Return when the server last confirmed all rows of this noun that aren't marked as vanished.

        Rows don't record this one by one: that would write 100,000 rows for each unchanged list.
        """
        at = self.list_versions.get(noun, {}).get("confirmed_at")
        return datetime.fromisoformat(at) if at else None

    def list_error(self, noun: str) -> str:
        """Return why the list of `noun`s couldn't be read the last time; "" if it was read."""
        error: str = getattr(self, f"{noun}s_error")
        return error


class RegistryInfo(WithSecret):
    """Container registry that images are pushed to. Users choose it by name and never see the password."""

    SECRETS = ("password",)

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


class Cluster(WithSecret):
    """Cluster that services run on: the kubeconfig and pull secret that a create_service request carries."""

    SECRETS = ("kube_config",)

    account = models.ForeignKey(HostingAccount, on_delete=models.CASCADE, related_name="clusters")
    name = models.CharField(max_length=64)
    kube_config = EncryptedTextField(null=True, blank=True)
    pull_secret = models.CharField(max_length=200, validators=[RegexValidator(r"^[\w.-]+$")])
    production = models.BooleanField(default=False, help_text="Only operators deploy, update and delete services here.")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["account", "name"], name="cluster_name")]

    def __str__(self) -> str:
        return self.name
