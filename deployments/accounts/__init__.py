"""Hosting accounts, registries and clusters."""
