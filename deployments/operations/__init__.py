"""Operations: from a user's request to a terminal state."""
