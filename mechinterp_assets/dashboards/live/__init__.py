"""Pages made on request from the lake."""
