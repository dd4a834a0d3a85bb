"""Tests of deployments with real workers."""
