"""The OCI image layout on disk, and its layers."""
