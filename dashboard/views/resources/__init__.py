"""List and detail pages of the model lifecycle."""
