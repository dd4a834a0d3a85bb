"""Scoring keys of services, where the server provides them (an extension). Stored encrypted in the row only."""

import logging

from deployments.client import errors
from deployments.client.client import MMSClient
from deployments.models import Service

log = logging.getLogger(__name__)


def fetch(service: Service, client: MMSClient) -> bool:
    """Store the service's scoring key. Return False if the server has none or can't provide it now."""
    if not service.mms_id or not service.scoring_uri:
        return False
    try:
        service.scoring_key = client.get_service_key(service.mms_id) or None
    except errors.MMSError as error:
        log.info("Couldn't read the scoring key of %s: %s", service, error)
        return False
    service.save(update_fields=["scoring_key"])
    return True
