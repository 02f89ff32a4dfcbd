"""What the product does. Services raise errors of `backend.errors` and know neither HTTP nor LangChain."""
