"""What can go wrong with a call to an MMS: whose fault it was, and whether the request may be sent again.

MMSError
 +- NotSent             the server did nothing: safe to send again
 |   +- Unreachable     nothing of the request has left: no connection, no such name, no TLS
 |   +- NoToken         who gives the tokens is out of reach or broken: the server was not called
 |   +- Busy            429, or 503 with Retry-After: later
 +- OutcomeUnknown      it may have happened: look first, only then send again
 |   +- NoAnswer        time-out, reset, cut short
 |   |   +- TooLarge    more than is taken
 |   +- ServerFault     any other 5xx
 |   +- Unintelligible  success, but not what the reference describes; or a status that means nothing here
 +- Rejected            the server understood and said no: sending the same again is pointless
     +- TokenRefused    401; or who gives the tokens gives none: a person has to change something
     +- Forbidden       403
     +- NotFound        404
     +- NotOffered      405 or 501: this server lacks the operation
     +- Conflict        409
     +- Redirected      3xx: the base URL is wrong; the token follows nowhere
"""

from deployments.client.wire import Failure


class MMSError(Exception):
    """A call that did not succeed. Its text is for people; `failure` has the server's own code and details."""

    code = "MMSError"

    def __init__(self, message: str, failure: Failure | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.failure = failure or Failure(code=self.code, message=message)
        self.retry_after = retry_after  # seconds, where the server named a time


class NotSentError(MMSError):
    code = "NotSent"


class UnreachableError(NotSentError):
    code = "Unreachable"


class NoTokenError(NotSentError):
    code = "NoToken"


class BusyError(NotSentError):
    code = "Busy"


class OutcomeUnknownError(MMSError):
    code = "OutcomeUnknown"


class NoResponseError(OutcomeUnknownError):
    code = "NoAnswer"


class ResponseTooLargeError(NoResponseError):
    code = "TooLarge"


class ServerFaultError(OutcomeUnknownError):
    code = "ServerFault"


class InvalidResponseError(OutcomeUnknownError):
    code = "Unintelligible"


class RejectedError(MMSError):
    code = "Rejected"


class TokenRefusedError(RejectedError):
    code = "TokenRefused"


class ForbiddenError(RejectedError):
    code = "Forbidden"


class NotFoundError(RejectedError):
    code = "NotFound"


class NotSupportedError(RejectedError):
    code = "NotOffered"


class ConflictError(RejectedError):
    code = "Conflict"


class RedirectedError(RejectedError):
    code = "Redirected"


ERROR_BY_STATUS: dict[int, type[RejectedError]] = {
    401: TokenRefusedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: NotSupportedError,
    409: ConflictError,
    501: NotSupportedError,
}

# What is about the server as a whole; any other refusal is about the one thing that was asked.
SERVER_WIDE = (NotSentError, OutcomeUnknownError, TokenRefusedError, RedirectedError)
