"""Tables of the bundled MMS."""

import uuid

from django.db import models

from encryption.fields import EncryptedTextField


class Account(models.Model):
    """A hosting account of this server, named by three parts of each URL."""

    subscription = models.CharField(max_length=200)
    resource_group = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subscription", "resource_group", "name"], name="mms_account_names")
        ]

    def __str__(self) -> str:
        return self.name


class Scope(models.TextChoices):
    """Permissions of a token in its account."""

    READ = "read"  # GET except scoring keys
    WRITE = "write"  # everything


class Token(models.Model):
    """A bearer token of one account, stored as a SHA-256 hash."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.WRITE)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Null: never.")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="To the minute.")
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Resource(models.Model):
    """Base of the resources that the API creates."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="%(class)ss")
    description = models.CharField(max_length=512, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        abstract = True


class Model(Resource):
    """A version of a registered model."""

    name = models.CharField(max_length=32)
    version = models.PositiveIntegerField()
    url = models.TextField()
    tags = models.JSONField(default=list)
    mime_type = models.CharField(max_length=200, blank=True, default="")
    unpack = models.BooleanField(default=False)
    client_request_id = models.CharField(max_length=100, null=True)  # noqa: DJ001 - null is not unique
    request_digest = models.CharField(max_length=64, blank=True, default="", help_text="Digest of the request.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "name", "version"], name="mms_model_version"),
            models.UniqueConstraint(fields=["account", "client_request_id"], name="mms_model_client_request"),
        ]
        indexes = [models.Index(fields=["account", "created_at", "id"], name="mms_model_in_order")]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class Manifest(Resource):
    """Models, assets and a runtime, from which images are built."""

    driver_program = models.CharField(max_length=255, blank=True, default="")
    model_ids = models.JSONField(help_text="As sent: ids or names.")
    assets = models.JSONField(help_text="Items: id, url, mimeType, unPack.")
    runtime_type = models.CharField(max_length=32)
    properties = models.JSONField(default=dict)
    # Names in model_ids are resolved at creation to their newest version, in the order sent.
    resolved_model_ids = models.JSONField(default=list, help_text="Model ids.")
    client_request_id = models.CharField(max_length=100, null=True)  # noqa: DJ001
    request_digest = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "client_request_id"], name="mms_manifest_client_request"),
        ]
        indexes = [models.Index(fields=["account", "created_at", "id"], name="mms_manifest_in_order")]

    def __str__(self) -> str:
        return str(self.id)


class Image(Resource):
    """An image of a manifest. Readers see it once its build has succeeded."""

    manifest = models.ForeignKey(Manifest, on_delete=models.PROTECT, related_name="images")
    image_type = models.CharField(max_length=32, default="Docker")
    registry_location = models.CharField(max_length=400)
    registry_user = models.CharField(max_length=200, blank=True, default="")
    registry_password = EncryptedTextField(null=True, blank=True)
    # Set when the build succeeds. The API hides images without a digest.
    digest = models.CharField(max_length=100, blank=True, default="")
    reference = models.CharField(max_length=500, blank=True, default="")
    result = models.JSONField(default=dict, blank=True, help_text="Result reported by the build.")

    class Meta:
        indexes = [models.Index(fields=["account", "created_at", "id"], name="mms_image_in_order")]

    def __str__(self) -> str:
        return str(self.id)


class Service(Resource):
    """A service. Deleted services stay as rows until the retention period ends."""

    name = models.CharField(max_length=255)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="services")
    state = models.CharField(max_length=16, default="NotStarted")
    health = models.CharField(max_length=16, blank=True, default="")
    health_detail = models.TextField(blank=True, default="")
    kube_config = EncryptedTextField(null=True, blank=True)
    pull_secret = models.CharField(max_length=200)
    primary_key = EncryptedTextField(null=True)
    secondary_key = EncryptedTextField(null=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "name"], condition=models.Q(deleted_at=None), name="mms_service_name"
            )
        ]
        indexes = [models.Index(fields=["account", "created_at", "id"], name="mms_service_in_order")]

    def __str__(self) -> str:
        return self.name


class Revision(models.Model):
    """An image that a service runs or ran. Numbers start at 1 and are never reused."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="revisions")
    state = models.CharField(max_length=16, default="starting")  # starting, active, draining, stopped, failed
    address = models.CharField(
        max_length=500, blank=True, default="", help_text="Address at which the gateway connects to it."
    )
    detail = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["service", "number"], name="mms_revision_number")]

    def __str__(self) -> str:
        return f"{self.service_id} r{self.number}"


class State(models.TextChoices):
    """States of an operation, as spelled in responses."""

    NOT_STARTED = "NotStarted"
    RUNNING = "Running"
    CANCELED = "Canceled"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


TERMINAL = frozenset({State.CANCELED, State.SUCCEEDED, State.FAILED})
OPEN = frozenset(set(State) - TERMINAL)
OUTCOMES = {State.CANCELED: "been canceled", State.SUCCEEDED: "succeeded", State.FAILED: "failed"}  # after "has"


class Operation(models.Model):
    """An asynchronous operation, which clients poll."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="operations")
    operation_type = models.CharField(max_length=16)  # Image, Service
    verb = models.CharField(max_length=32)  # create_image, create_service, update_service, delete_service
    state = models.CharField(max_length=16, default="NotStarted", db_index=True)
    image = models.ForeignKey(Image, null=True, on_delete=models.CASCADE, related_name="operations")
    service = models.ForeignKey(Service, null=True, on_delete=models.CASCADE, related_name="operations")
    revision = models.ForeignKey(Revision, null=True, on_delete=models.CASCADE, related_name="operations")
    client_request_id = models.CharField(max_length=100, null=True)  # noqa: DJ001
    request_digest = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    error = models.JSONField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0, help_text="Number of times a worker claimed it.")
    cancel_requested = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "client_request_id"], name="mms_operation_client_request"),
            models.UniqueConstraint(
                fields=["service"],
                condition=models.Q(state__in=["NotStarted", "Running"]),
                name="mms_one_open_operation_per_service",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.id}"


class Collection(models.Model):
    """The version of one of an account's lists. Written by triggers; see mms.changes."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    noun = models.CharField(max_length=16)  # as in the path: models, manifests, images, services
    version = models.BigIntegerField()
    epoch = models.CharField(max_length=16, help_text="Random. A version is only meaningful together with it.")
    oldest = models.BigIntegerField(help_text="Changes up to this version may have been deleted.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "noun"], name="mms_collection_of_account")]

    def __str__(self) -> str:
        return f"{self.noun} v{self.version}"


class Change(models.Model):
    """The last change of a listed resource. Written by triggers; see mms.changes."""

    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    noun = models.CharField(max_length=16)
    resource_id = models.UUIDField()
    version = models.BigIntegerField()
    removed = models.BooleanField()
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["noun", "resource_id"], name="mms_change_of_resource")]
        indexes = [models.Index(fields=["account", "noun", "version"], name="mms_change_by_version")]

    def __str__(self) -> str:
        return f"{self.noun} {self.resource_id} v{self.version}"
