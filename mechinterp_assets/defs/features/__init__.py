"""Assets of the group `features`."""
