"""Sign-in pages and the pages of your account."""
