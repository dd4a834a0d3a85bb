"""Encryption of stored secrets with SECRET_KEY, and the fingerprint that shows whether the site has the right key."""
