"""The supervised programs, their heartbeats and the watchdog."""
