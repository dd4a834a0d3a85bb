"""Models of the dashboard, re-exported for Django. Each package defines its own."""

from dashboard.access.models import FormSubmission, Membership, Role, Source
from dashboard.audit.models import AppendOnly, AuditEntry
from dashboard.auth.models import (
    ApiToken,
    Identity,
    Machine,
    OpenSession,
    RecoveryCode,
    SecondFactor,
    SentOnce,
    SignInTry,
)
from dashboard.catalog.lists.search import HasWord  # registered when Django loads models
from dashboard.files.models import FormerFileKey

__all__ = [
    "ApiToken",
    "AppendOnly",
    "AuditEntry",
    "FormSubmission",
    "FormerFileKey",
    "HasWord",
    "Identity",
    "Machine",
    "Membership",
    "OpenSession",
    "RecoveryCode",
    "Role",
    "SecondFactor",
    "SentOnce",
    "SignInTry",
    "Source",
]
