"""Connection test of a server: read the list of services as the account would."""

import time

from deployments.accounts import credentials
from deployments.accounts.availability import client_for
from deployments.accounts.connection_tests import (
    CALL_SECONDS,
    ConnectionTestResult,
    insecure_note,
    slow_note,
    unreachable,
)
from deployments.client import errors
from deployments.client.transport import BearerToken, KnownSecrets
from deployments.models import HostingAccount

ADVICE: dict[type[errors.MMSError], str] = {
    errors.ForbiddenError: "The server accepts the token but doesn't let it read this hosting account. "
    "Ask the person who runs the server for access.",
    errors.NotFoundError: "Check the subscription, resource group, hosting account and API version for typos.",
    errors.NotSupportedError: "This isn't an MMS, or the base URL has a path it shouldn't have.",
    errors.RedirectedError: "Use the address it redirects to, if that is the server.",
    errors.BusyError: "It works but is busy. Try again later.",
    errors.InvalidResponseError: "The server there isn't an MMS. Check the base URL.",
    errors.ServerFaultError: "The server, or a proxy in front of it, failed. Contact the person who runs it.",
    errors.RejectedError: "Check that the server supports this API version.",
}


def try_server(account: HostingAccount, known: KnownSecrets) -> ConnectionTestResult:
    """Read the list of services. The account may be unsaved. Changes nothing and caches no Entra ID tokens.

    known: the account's secrets, for its client.
    """
    credential = credentials.credential_for(account)
    if isinstance(credential, credentials.UndecryptableCredential):
        return ConnectionTestResult(
            False, credential.reason, "Restore the site's secret key, or enter the value again."
        )
    if account.sign_in == HostingAccount.SignIn.ENTRA:
        client = credentials.entra_client(account)
        try:
            credential = BearerToken(credentials.fetch_token(client, time.monotonic() + CALL_SECONDS).token)
        except errors.TokenRefusedError as error:
            return ConnectionTestResult(False, str(error), "Check the tenant, client ID, client secret and scope.")
        except errors.NoTokenError as error:
            return unreachable(error, "Authority")
    started = time.monotonic()
    try:
        with client_for(account, credential, known, read_timeout=CALL_SECONDS, deadline=CALL_SECONDS) as mms:
            listing = mms.list_services()
    except errors.MMSError as error:
        return _failed(account, error)
    count = len(listing.items)
    message = f"The server responded and lists {count} {'service' if count == 1 else 'services'}."
    return ConnectionTestResult(True, message + slow_note(time.monotonic() - started), insecure_note(account.base_url))


def _failed(account: HostingAccount, error: errors.MMSError) -> ConnectionTestResult:
    if isinstance(error, errors.TokenRefusedError):
        entra = account.sign_in == HostingAccount.SignIn.ENTRA
        advice = (
            "Entra ID issued a token, but the server rejected it. Check that the scope is the server's own."
            if entra
            else "The token is wrong or no longer valid. Get a new one from the person who runs the server."
        )
        return ConnectionTestResult(False, str(error), advice)
    if isinstance(error, errors.NoResponseError | errors.UnreachableError):
        return unreachable(error, "Base URL")
    advice = next((text for kind, text in ADVICE.items() if isinstance(error, kind)), "")
    return ConnectionTestResult(False, str(error), advice)
