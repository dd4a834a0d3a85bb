"""The scoring gateway, a program of its own; no Django."""
