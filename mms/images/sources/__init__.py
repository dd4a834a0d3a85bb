"""Fetching and unpacking models and assets."""
