"""Services as sandboxed local processes."""
