"""Who may do what in which hosting account."""

from django.conf import settings
from django.db import models


class Role(models.TextChoices):
    """Roles in a hosting account, weakest first. A site administrator is a superuser and needs none."""

    VIEWER = "viewer", "Viewer"
    SCIENTIST = "scientist", "Data scientist"
    OPERATOR = "operator", "Operator"


class Membership(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    # No foreign key: tables of another package are referred to by id.
    account_id = models.BigIntegerField(db_index=True)
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "account_id"], name="one_role_per_account")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role}"
