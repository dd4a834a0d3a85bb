"""The message that `up` prints when the site is ready."""

import os

import pytest
from pytest_django import Settings

from dashboard.ops.startup import banner

ME = os.getppid()  # announcements are made by a child of the supervisor


@pytest.fixture
def all_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banner, "health", lambda: {"web": "works"})


def said(capsys: pytest.CaptureFixture[str], logs: str = "here") -> str:
    banner.announce("", logs, ME)
    return capsys.readouterr().out


@pytest.mark.usefixtures("all_works")
def test_the_message_of_a_site_has_the_address_of_its_pages(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"The site is up: {settings.SITE_URL}    (stop it with Ctrl-C; logs in /x)" in said(capsys, "in /x")


@pytest.mark.usefixtures("all_works")
def test_the_message_of_an_mms_alone_has_its_address_and_that_of_its_gateway(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SERVE, settings.MMS_URL, settings.GATEWAY_URL = {"mms"}, "http://mms:8000", "https://scoring.example"
    text = said(capsys)
    assert "The MMS is up: http://mms:8000 " in text
    assert "Scoring URLs begin with https://scoring.example/scoring/\n" in text


@pytest.mark.usefixtures("all_works")
def test_without_a_sandbox_it_explains_the_access_of_services(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(banner, "unsandboxed_reason", lambda: "Services run without a sandbox. " * 9)
    assert "Services run without a sandbox." in said(capsys)
    settings.SERVE = {"dashboard"}
    assert "sandbox" not in said(capsys)


def test_a_part_that_does_not_work_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(banner, "TIMEOUT_SECONDS", 0)
    monkeypatch.setattr(banner, "health", lambda: {"web": "works", "redis": "not responding"})
    text = said(capsys)
    assert "redis: not responding\nThe logs are here." in text
    assert "web:" not in text
