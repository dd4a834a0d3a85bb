"""Tables of authorization: the role of each user in each hosting account."""

from django.conf import settings
from django.db import models


class Role(models.TextChoices):
    """Roles in a hosting account, weakest first. Site administrators are superusers and need no role."""

    VIEWER = "viewer", "Viewer"
    SCIENTIST = "scientist", "Data scientist"
    OPERATOR = "operator", "Operator"


class Source(models.TextChoices):
    """The origin of a role.

    A role from the identity provider is removed when the user leaves the group. A role from the site stays until an
    operator removes it.
    """

    SITE = "site", "Given here"
    PROVIDER = "provider", "From a group of the identity provider"


class Membership(models.Model):
    """The role of one user in one hosting account."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    # No foreign key: tables of other packages are referenced by id.
    account_id = models.BigIntegerField(db_index=True)
    role = models.CharField(max_length=16, choices=Role.choices)
    source = models.CharField(max_length=16, choices=Source.choices, default=Source.SITE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "account_id"], name="one_role_per_account")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role}"


class FormSubmission(models.Model):
    """A form that a user submitted, and the page that the response redirected to."""

    user_id = models.BigIntegerField()
    digest = models.CharField(max_length=64)  # of the form's key, its address and its content
    location = models.CharField(max_length=2000, blank=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user_id", "digest"], name="one_form_submission")]

    def __str__(self) -> str:
        return f"form submitted by user {self.user_id}"
