"""How this server reaches others: whom it trusts, through which proxies, and with which connections."""
