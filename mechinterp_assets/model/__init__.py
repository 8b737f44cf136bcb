"""The language model: loading, sizes, weights, partial forward passes, precision."""
