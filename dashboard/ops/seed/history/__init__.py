"""The history of one seeded account: what its team registered, composed, built and deployed in six weeks."""
