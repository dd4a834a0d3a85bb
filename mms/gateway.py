"""The gateway: one stable scoring URL per service."""
