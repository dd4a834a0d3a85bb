"""Entries of the audit log, by account."""

from django.db.models import QuerySet

from dashboard.audit.models import AuditEntry

PAGE_SIZE = 50


def entries_of(accounts: frozenset[int] | None) -> QuerySet[AuditEntry]:
    """Return the entries of the accounts with these primary keys; with None, all entries."""
    return AuditEntry.objects.all() if accounts is None else AuditEntry.objects.filter(account_id__in=accounts)
