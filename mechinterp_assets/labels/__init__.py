"""What people say features and heads mean: CSV sheets, read and checked."""
