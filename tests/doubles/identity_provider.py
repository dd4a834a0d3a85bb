"""An OpenID Connect provider in a separate process: oidc-provider-mock, changed to require PKCE.

`python -m tests.doubles.identity_provider PORT` serves it. Set users with `PUT /users/<subject>` (claims as JSON). The
sign-in page accepts a subject or a denial. `PUT /spoil` with `{"claim": value}` replaces a claim of ID tokens. With
`{"signed": "by another"}` or `{"signed": "not"}` they get a wrong signature or none.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from tests.ports import free_port
from tests.site import ROOT, wait_until

CLIENT = {"OIDC_CLIENT_ID": "the-dashboard", "OIDC_CLIENT_SECRET": "a-secret-of-the-client"}


class Provider:
    """Client for tests to configure the provider."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def person(self, subject: str, **claims: Any) -> None:
        """Create a user with these claims."""
        requests.put(f"{self.url}/users/{subject}", json=claims, timeout=10).raise_for_status()

    def spoil(self, **claims: Any) -> None:
        """Replace these claims in all further ID tokens. Without arguments, tokens are correct again."""
        requests.put(f"{self.url}/spoil", json=claims, timeout=10).raise_for_status()

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/.well-known/openid-configuration", timeout=1).ok
        except requests.RequestException:
            return False

    def settings(self, **more: str) -> dict[str, str]:
        """Return the environment variables of a site that uses the provider."""
        return {"OIDC_ISSUER": self.url, "OIDC_NAME": "The Company", **CLIENT, **more}


@contextmanager
def running() -> Iterator[Provider]:
    port = free_port()
    command = [sys.executable, "-m", "tests.doubles.identity_provider", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        provider = Provider(port)
        wait_until(provider.answers, 30, "the identity provider")
        yield provider
    finally:
        process.kill()
        process.wait()


def _serve(port: int) -> None:
    import oidc_provider_mock._app as oidc
    import uvicorn
    from flask import Flask, request
    from joserfc.jwk import RSAKey

    spoiled: dict[str, Any] = {}
    challenges: dict[str, str] = {}
    save, generate, token = (
        oidc.AuthorizationCodeGrant.save_authorization_code,
        oidc.OpenIDCode.generate_user_info,
        oidc.AuthorizationCodeGrant.validate_token_request,
    )

    def keep_challenge(self: Any, code: str, asked: Any) -> None:
        assert request.args["code_challenge_method"] == "S256"
        assert request.args["nonce"]
        assert request.args["state"]
        challenges[code] = request.args["code_challenge"]
        save(self, code, asked)

    def check_verifier(self: Any) -> None:
        digest = hashlib.sha256(request.form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        assert challenges.pop(request.form["code"]) == challenge
        token(self)

    oidc.AuthorizationCodeGrant.save_authorization_code = keep_challenge
    oidc.AuthorizationCodeGrant.validate_token_request = check_verifier
    oidc.OpenIDCode.generate_user_info = lambda *words: {**generate(*words), **spoiled}
    settings_of_tokens = oidc.OpenIDCode.get_jwt_config

    def sign(*words: Any) -> dict[str, Any]:
        how = spoiled.get("signed")
        wrong: dict[str, dict[str, Any]] = {
            "by another": {"key": RSAKey.generate_key(2048).as_dict(private=True)},
            "not": {"alg": "none"},
        }
        return {**settings_of_tokens(*words), **wrong.get(how or "", {})}

    oidc.OpenIDCode.get_jwt_config = sign
    app: Flask = oidc.app(require_nonce=True)

    @app.put("/spoil")
    def spoil() -> str:
        spoiled.clear()
        spoiled.update(json.loads(request.data))
        return "done"

    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    uvicorn.run(app, interface="wsgi", host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
