"""What a manifest requires of its image, checked before the build."""
