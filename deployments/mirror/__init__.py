"""Keeping the mirror fresh."""
