"""Requirements of a manifest for its image, checked before the build."""
