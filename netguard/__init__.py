"""Rules for data sent to other programs or received from them: addresses, redaction, safe YAML; no Django."""
