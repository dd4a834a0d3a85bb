"""Rules for what other programs are sent and what they send: addresses, redaction of secrets, safe YAML; no Django."""
