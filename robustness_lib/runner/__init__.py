"""Jobs, records, and how many of them are run."""
