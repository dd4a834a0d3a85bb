"""Which addresses outgoing requests may reach: one deny list, checked on the address that is connected to."""
