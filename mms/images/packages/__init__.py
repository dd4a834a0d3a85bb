"""Python packages, installed with uv."""
