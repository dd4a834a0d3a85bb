"""The MMS client: one method per REST operation."""
