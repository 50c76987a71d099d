"""Programs as others write them, each of which fetches something: one table, and their sources."""
