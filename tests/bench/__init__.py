"""Benchmarks of a complete site, and of MLflow and BentoML for comparison. See docs/reference/performance.md."""
