"""The distribution protocol and base images."""
