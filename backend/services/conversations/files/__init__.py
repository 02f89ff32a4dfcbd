"""A session as a file: its schema, export and import."""
