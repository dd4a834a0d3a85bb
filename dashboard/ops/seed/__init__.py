"""Sample data for development: three hosting accounts with realistic history. Nothing is built or deployed."""
