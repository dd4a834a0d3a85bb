"""The MMS over HTTP; no Django."""
