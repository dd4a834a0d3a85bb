"""Six weeks of sample history of an account: registered models, manifests, images and services."""
