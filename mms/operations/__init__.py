"""Asynchronous operations, builds, leases and retention."""
