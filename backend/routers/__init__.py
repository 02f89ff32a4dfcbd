"""The edge: parse, authorise, one service call, encode."""
