"""Address rules for outgoing requests: one deny list, checked against the address that is connected to."""
