"""Actions that pages and the JSON API share: lookups, checks, changes, and their audit details."""
