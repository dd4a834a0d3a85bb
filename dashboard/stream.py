"""The live stream: one SSE connection per visible tab."""
