"""Uploaded files, stored by SHA-256."""
