"""Engines that run revisions of services."""
