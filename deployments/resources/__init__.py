"""Rows that mirror resources of a server."""
