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
