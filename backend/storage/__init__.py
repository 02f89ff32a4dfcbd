"""The database: the truth about sessions, messages, runs, documents and jobs. sqlite3 and SQLAlchemy stay in here."""
