"""Pages that submit operations: register, build, deploy, update, delete, test."""
