"""Settings pages of a hosting account."""
