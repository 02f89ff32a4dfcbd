"""The database: the truth about sessions, messages, runs, documents and jobs. SQLAlchemy and sqlite3 stay in here."""
