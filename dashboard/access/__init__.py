"""Authorization: roles, the permission table, view guards."""
