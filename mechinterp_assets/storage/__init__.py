"""Where results live: the lake of tables, the tensor store, declarations, provenance."""
