"""Everything that knows a model or a document's insides. What chains need of others they declare as Protocols."""
