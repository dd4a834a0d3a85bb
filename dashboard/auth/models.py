"""Tables behind signing in: sessions, tries, who somebody is at the identity provider, and second factors.

Part of dashboard/models.py, which names them for Django.
"""

from django.conf import settings
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from encrypted_fields.fields import EncryptedTextField


class OpenSession(AbstractBaseSession):
    """A session, and beside what Django keeps of it, whose it is: so that it can be listed and ended."""

    user_id = models.BigIntegerField(null=True, blank=True, db_index=True, help_text="None before the sign-in.")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    address = models.CharField(max_length=64, blank=True)
    browser = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["-seen_at"]

    def __str__(self) -> str:
        return f"a session of person {self.user_id} from {self.address}"


class SignInTry(models.Model):
    """One try that failed, or has not ended yet. Names are kept as keyed hashes: people type passwords there, too."""

    at = models.DateTimeField(db_index=True)
    name_key = models.CharField(max_length=64)
    place = models.CharField(max_length=80, help_text="The address; or the browser, where that person was in before.")
    known = models.BooleanField(help_text="Whether it came from a browser in which that person was signed in before.")

    class Meta:
        indexes = [models.Index(fields=["name_key", "at"]), models.Index(fields=["place", "at"])]

    def __str__(self) -> str:
        return f"a try from {self.place}"


class Identity(models.Model):
    """Who somebody is at the identity provider. Only this makes the provider's people and ours the same."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="identity")
    issuer = models.CharField(max_length=200)
    subject = models.CharField(max_length=255)
    administrator = models.BooleanField(default=False, help_text="Made an administrator by a group, not by the site.")

    class Meta:
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="one_person_per_subject")]

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"


class SecondFactor(models.Model):
    """The secret that a person's authenticator app shares with the site."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="second_factor")
    secret = EncryptedTextField(help_text="Base32.")
    confirmed = models.BooleanField(default=False, help_text="Asked for only after the app has shown a right code.")
    made_at = models.DateTimeField(auto_now_add=True)
    last_step = models.BigIntegerField(default=0, help_text="Of the newest code used: none is taken twice.")

    def __str__(self) -> str:
        return f"the second factor of {self.user}"


class RecoveryCode(models.Model):
    """A code that replaces the app once; its row goes when it is used."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"a recovery code of {self.user}"
