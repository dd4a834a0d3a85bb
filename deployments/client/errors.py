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

    def __init__(self, message: str, failure: Failure | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.failure = failure or Failure(code=type(self).__name__, message=message)
        self.retry_after = retry_after  # seconds, where the server named a time


class NotSent(MMSError):
    pass


class Unreachable(NotSent):
    pass


class NoToken(NotSent):
    pass


class Busy(NotSent):
    pass


class OutcomeUnknown(MMSError):
    pass


class NoAnswer(OutcomeUnknown):
    pass


class TooLarge(NoAnswer):
    pass


class ServerFault(OutcomeUnknown):
    pass


class Unintelligible(OutcomeUnknown):
    pass


class Rejected(MMSError):
    pass


class TokenRefused(Rejected):
    pass


class Forbidden(Rejected):
    pass


class NotFound(Rejected):
    pass


class NotOffered(Rejected):
    pass


class Conflict(Rejected):
    pass


class Redirected(Rejected):
    pass


REJECTED: dict[int, type[Rejected]] = {
    401: TokenRefused,
    403: Forbidden,
    404: NotFound,
    405: NotOffered,
    409: Conflict,
    501: NotOffered,
}

# What is about the server as a whole; any other refusal is about the one thing that was asked.
OF_THE_SERVER = (NotSent, OutcomeUnknown, TokenRefused, Redirected)
