"""OCI image builder; no Django."""
