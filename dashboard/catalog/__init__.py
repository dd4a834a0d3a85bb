"""Lists, filters, lineage, detail pages and pickers."""
