"""Options to run the contract tests on another server: `pytest tests/contract --mms-url URL --mms-token TOKEN`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mms", "the server whose contract is tested (without these: one started for it)")
    group.addoption("--mms-url", help="scheme, host and port of the server, without /api")
    group.addoption("--mms-token", help="bearer token of the hosting account")
    group.addoption("--mms-subscription", default="local")
    group.addoption("--mms-resource-group", default="local")
    group.addoption("--mms-account", default="local")
