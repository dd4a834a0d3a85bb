"""Error responses: an object with a code, a message, and a detail for each invalid field."""

from typing import Any

from pydantic import ValidationError


class ApiError(Exception):
    """An error response with its HTTP status. Raised anywhere in the API and sent by the application."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.details = details or []
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the error object."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


def detail(code: str, message: str, target: str) -> dict[str, str]:
    """Return one item of `ApiError.details`. `target` is the path of a field."""
    return {"code": code, "message": message, "target": target}


def invalid(*details: dict[str, str]) -> ApiError:
    """Return the error 400 for all `details`. Its message repeats them, for clients that show only the message."""
    message = " ".join(
        f"{item['target']}: {item['message']}" if item["target"] else item["message"] for item in details
    )
    return ApiError(400, "InvalidRequest", message, list(details))


def bad_field(target: str, message: str, code: str = "Invalid") -> ApiError:
    """Return the error 400 for one field or parameter. `message` continues the sentence that its name begins."""
    return invalid(detail(code, message, target))


def not_found(noun: str, id: str) -> ApiError:
    """Return the error 404 for a resource."""
    return ApiError(404, "NotFound", f"There is no {noun} {id[:64]!r} in this hosting account.")


def conflict(code: str, message: str, target: str = "") -> ApiError:
    """Return an error 409."""
    return ApiError(409, code, message, [detail(code, message, target)] if target else [])


def from_validation(error: ValidationError) -> ApiError:
    """Return the error 400 for the fields that pydantic rejected, with our messages."""
    problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return ApiError(400, "InvalidJson", f"The body isn't JSON: {problems[0]['ctx']['error']}.")
    return invalid(*(_field_problem(problem) for problem in problems))


def _field_problem(problem: Any) -> dict[str, str]:
    kind, context = problem["type"], problem.get("ctx") or {}
    target = _target(problem["loc"])
    if kind == "extra_forbidden":
        return detail("UnknownField", "is not a field of this request.", target)
    if kind == "missing":
        return detail("Required", "is required.", target)
    if kind in {"string_too_long", "too_long"}:
        unit = "characters" if kind == "string_too_long" else "items"
        return detail("TooLong", f"may have at most {context['max_length']} {unit}.", target)
    if kind == "model_type":
        return detail("Invalid", "must be a JSON object.", target)
    if message := MESSAGES.get(kind):
        return detail("Invalid", message, target)
    return detail("Invalid", problem["msg"].rstrip(".") + ".", target)


MESSAGES = {
    "string_type": "must be a string.",
    "bool_type": "must be true or false.",
    "bool_parsing": "must be true or false.",
    "list_type": "must be a list.",
    "too_short": "must not be empty.",
    "string_too_short": "must not be empty.",
}


def _target(location: tuple[str | int, ...]) -> str:
    """Return a location such as `("assets", 0, "url")` as `assets[0].url`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:200]
