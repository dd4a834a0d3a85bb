"""Authentication: sign-in, sessions, two-factor authentication, API tokens."""
