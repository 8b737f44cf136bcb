"""Studies: YAML files that say what is computed, and the registry of all of them."""
