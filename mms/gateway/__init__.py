"""The scoring gateway, a separate program; no Django."""
