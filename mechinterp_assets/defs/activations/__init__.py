"""Assets of the group `activations`."""
