"""Entries about changes at the bundled MMS. The MMS calls `record_mms_entry`, which MMS_AUDIT_RECORDER names."""

from typing import Any

from django.conf import settings

from dashboard.audit.record import record_entry
from deployments.models import HostingAccount


def record_mms_entry(action: str, *, names: tuple[str, str, str], **entry: Any) -> None:
    """Write one entry. `names` are subscription, resource group and name of the hosting account at the MMS.

    The entry belongs to the dashboard's account of the same name that uses this hosting account, if there is one, and
    its operators see it. Operators can change the server of an account but not its name, so they can't gain the
    entries of another hosting account.
    """
    subscription, resource_group, name = names
    account = HostingAccount.objects.filter(
        name=name,
        base_url=settings.MMS_URL,
        subscription=subscription,
        resource_group=resource_group,
        hosting_account=name,
    ).only("pk", "name")
    record_entry(action, account_id=account.values_list("pk", flat=True).first(), account_name=name, **entry)
