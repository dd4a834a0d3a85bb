"""Forms for models, assets, manifests, images, services and operations."""
