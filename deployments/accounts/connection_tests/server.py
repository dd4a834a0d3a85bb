"""Try a server: read the list of services as the account would."""

import time

from deployments.accounts import credentials
from deployments.accounts.availability import client_for
from deployments.accounts.connection_tests import CALL, Trial, openly, slowly, unreached
from deployments.client import errors
from deployments.client.transport import BearerToken, Credential
from deployments.models import HostingAccount

ADVICE: dict[type[errors.MMSError], str] = {
    errors.Forbidden: "The token is known there, but may not read this hosting account: whoever runs the server can "
    "allow it.",
    errors.NotFound: "Look for a slip in subscription, resource group, hosting account and API version.",
    errors.NotOffered: "This is another kind of server, or the base URL has a path too many.",
    errors.Redirected: "Write the address that it leads to, if that is the server.",
    errors.Busy: "It works, and is busy now: try once more later.",
    errors.Unintelligible: "Something answers there, but it is no MMS: check the base URL.",
    errors.ServerFault: "The server itself is broken, or something in front of it: ask whoever runs it.",
    errors.Rejected: "Is the API version one that this server knows?",
}


def try_server(account: HostingAccount) -> Trial:
    """account: perhaps not saved, and not to be. Its token is fetched anew where Entra ID gives it."""
    credential: Credential = BearerToken(account.token or "")
    if account.sign_in == HostingAccount.SignIn.ENTRA:
        client = credentials.entra_client(account)
        try:
            credential = BearerToken(credentials.fetch(client, time.monotonic() + CALL).token)
        except errors.TokenRefused as error:
            return Trial(False, str(error), "Check tenant, client id, client secret and scope.")
        except errors.NoToken as error:
            return unreached(error, "Authority")
    started = time.monotonic()
    try:
        with client_for(account, credential, read_timeout=CALL, deadline=CALL) as mms:
            listing = mms.list_services()
    except errors.MMSError as error:
        return _failed(account, error)
    count = len(listing.items)
    says = f"The server answers, and lists {count} {'service' if count == 1 else 'services'}."
    return Trial(True, says + slowly(time.monotonic() - started), openly(account.base_url))


def _failed(account: HostingAccount, error: errors.MMSError) -> Trial:
    if isinstance(error, errors.TokenRefused):
        entra = account.sign_in == HostingAccount.SignIn.ENTRA
        advice = (
            "Entra ID gave a token, and the server does not take it: is the scope the server's own?"
            if entra
            else "The token is wrong, or no longer valid: get another one from whoever runs the server."
        )
        return Trial(False, str(error), advice)
    if isinstance(error, errors.NoAnswer | errors.Unreachable):
        return unreached(error, "Base URL")
    advice = next((text for kind, text in ADVICE.items() if isinstance(error, kind)), "")
    return Trial(False, str(error), advice)
