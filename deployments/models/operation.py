"""Operations: every write that a user requests, and its state in the pipeline."""

import uuid

from django.db import models
from django.db.models import Q

from deployments.models.account import HostingAccount
from deployments.models.image import Image
from deployments.models.manifest import Manifest
from deployments.models.model import RegisteredModel
from deployments.models.service import Service


class Kind(models.TextChoices):
    """Kind of operation. Each has a function in `operations.submit` and `operations.requests` and a client method."""

    REGISTER_MODEL = "register_model", "Register model"
    CREATE_MANIFEST = "create_manifest", "Create manifest"
    CREATE_IMAGE = "create_image", "Create image"
    CREATE_SERVICE = "create_service", "Create service"
    UPDATE_SERVICE = "update_service", "Update service"
    DELETE_SERVICE = "delete_service", "Delete service"


class State(models.TextChoices):
    """State of an operation. `live.transitions` lists the allowed transitions."""

    QUEUED = "queued", "Queued"
    SENDING = "sending", "Sending"
    NOT_STARTED = "not_started", "Accepted"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELED = "canceled", "Canceled"
    UNCERTAIN = "uncertain", "Uncertain"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})
OPEN = frozenset(set(State) - TERMINAL)
UNSENT = frozenset({State.QUEUED, State.SENDING})
ACCEPTED = frozenset({State.NOT_STARTED, State.RUNNING})  # polled until the server reports the end
RETRYABLE = frozenset({State.FAILED, State.CANCELED})
SERVICE_CHANGES = frozenset({Kind.UPDATE_SERVICE, Kind.DELETE_SERVICE})  # kinds that change a service that exists
NEEDS_DECISION = "NeedsDecision"  # error code of an uncertain operation that waits for a user's decision


class Operation(models.Model):
    """Write requested by a user. The id is also the idempotency key (`x-ms-client-request-id`)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(HostingAccount, on_delete=models.CASCADE, related_name="operations")
    kind = models.CharField(max_length=32, choices=Kind.choices)
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    requested_by = models.CharField(max_length=150)
    requested_at = models.DateTimeField(auto_now_add=True)
    # Arguments of the request, without secrets: rows are stored as primary keys.
    body = models.JSONField(default=dict)
    # The row that the operation creates or changes: exactly one of these, by kind.
    model = models.ForeignKey(RegisteredModel, null=True, on_delete=models.CASCADE, related_name="operations")
    manifest = models.ForeignKey(Manifest, null=True, on_delete=models.CASCADE, related_name="operations")
    image = models.ForeignKey(Image, null=True, on_delete=models.CASCADE, related_name="operations")
    service = models.ForeignKey(Service, null=True, on_delete=models.CASCADE, related_name="operations")

    mms_operation_id = models.CharField(max_length=200, blank=True, default="")
    sent_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    state_since = models.DateTimeField(auto_now_add=True)
    checked_at = models.DateTimeField(null=True, blank=True, help_text="Time of the server's last response about it.")
    check_error = models.TextField(
        blank=True, default="", help_text="Reason why the last check failed, shown to users."
    )
    check_failed_at = models.DateTimeField(null=True, blank=True, help_text="Time of the first failed check.")
    resumed_at = models.DateTimeField(null=True, blank=True, help_text="Time when a user last resumed the checks.")
    next_poll_at = models.DateTimeField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True, help_text="End of a worker's lease.")
    attempts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0, help_text="Consecutive failed steps. They delay the next one.")

    error_code = models.CharField(max_length=100, blank=True, default="")
    error_message = models.TextField(blank=True, default="", help_text="Reason of the failure, shown to users.")
    error_details = models.JSONField(default=list, blank=True)
    retry_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries")
    cancel_requested = models.BooleanField(default=False)

    class Meta:
        ordering = ["-requested_at"]
        indexes = [
            models.Index(fields=["account", "-requested_at"], name="operation_newest"),
            models.Index(fields=["state", "next_poll_at"], name="operation_due"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["service"], condition=Q(state__in=sorted(OPEN)), name="one_open_operation_per_service"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} · {self.resource or '?'}"

    @property
    def resource(self) -> RegisteredModel | Manifest | Image | Service | None:
        """Return the row that the operation creates or changes."""
        return self.model or self.manifest or self.image or self.service

    @property
    def is_open(self) -> bool:
        """Return True unless the operation is in a terminal state."""
        return self.state in OPEN
