"""Between Dagster and the rest: the shape of an asset, its inputs, its publishing, partitions."""
