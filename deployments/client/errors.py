"""Errors of calls to an MMS, grouped by whether the request may be sent again.

MMSError
 +- NotSentError                the request had no effect: safe to send again
 |   +- UnreachableError        nothing was sent: no connection, unknown host, TLS failure
 |   +- NoTokenError            the token authority is unavailable; the server wasn't called
 |   +- BusyError               429, or 503 with Retry-After: send later
 +- OutcomeUnknownError         it may have taken effect: probe before sending again
 |   +- NoResponseError         timeout, reset or truncated response
 |   |   +- ResponseTooLargeError
 |   +- ServerFaultError        any other 5xx
 |   +- InvalidResponseError    a success that doesn't match the API reference, or an unexpected status
 +- RejectedError               the server refused: sending the same again won't help
     +- TokenRefusedError       401, or the authority issues no token: credentials must change
     +- ForbiddenError          403
     +- NotFoundError           404
     +- NotSupportedError       405 or 501: this server lacks the operation
     +- ConflictError           409
     +- RedirectedError         3xx: the base URL is wrong; the token isn't sent elsewhere
"""

from deployments.client.wire import Failure


class MMSError(Exception):
    """Failed call. The message is for users; `failure` has the server's code and details.

    retry_after: seconds to wait as requested by the server; None if it requested nothing.
    """

    code = "MMSError"  # default error code of an operation; stored, so a renamed class retains its code

    def __init__(self, message: str, failure: Failure | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.failure = failure or Failure(code=self.code, message=message)
        self.retry_after = retry_after


class NotSentError(MMSError):
    """The request had no effect."""

    code = "NotSent"


class UnreachableError(NotSentError):
    """Nothing of the request was sent."""

    code = "Unreachable"


class NoTokenError(NotSentError):
    """The token authority is unavailable, so the server wasn't called."""

    code = "NoToken"


class BusyError(NotSentError):
    """The server asks to send the request later."""

    code = "Busy"


class OutcomeUnknownError(MMSError):
    """The request may have taken effect."""

    code = "OutcomeUnknown"


class NoResponseError(OutcomeUnknownError):
    """No complete response arrived."""

    code = "NoAnswer"


class ResponseTooLargeError(NoResponseError):
    """The response exceeds the size limit."""

    code = "TooLarge"


class ServerFaultError(OutcomeUnknownError):
    """The server failed with a 5xx status."""

    code = "ServerFault"


class InvalidResponseError(OutcomeUnknownError):
    """The response doesn't match the API reference."""

    code = "Unintelligible"


class RejectedError(MMSError):
    """The server refused the request."""

    code = "Rejected"


class TokenRefusedError(RejectedError):
    """The server rejected the token, or the authority issued none."""

    code = "TokenRefused"


class ForbiddenError(RejectedError):
    """The account lacks the permission."""

    code = "Forbidden"


class NotFoundError(RejectedError):
    """The resource doesn't exist."""

    code = "NotFound"


class NotSupportedError(RejectedError):
    """The server lacks the operation."""

    code = "NotOffered"


class ConflictError(RejectedError):
    """The request conflicts with the state of the resource."""

    code = "Conflict"


class RedirectedError(RejectedError):
    """The server sent a redirect, which is never followed."""

    code = "Redirected"


ERROR_BY_STATUS: dict[int, type[RejectedError]] = {
    401: TokenRefusedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: NotSupportedError,
    409: ConflictError,
    501: NotSupportedError,
}

# Errors about the server as a whole. Other rejections only concern the requested resource.
SERVER_WIDE = (NotSentError, OutcomeUnknownError, TokenRefusedError, RedirectedError)
