"""The database of sessions, messages, runs, documents and jobs. Only this package imports sqlite3 and SQLAlchemy."""
