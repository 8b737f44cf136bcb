"""Assets of the group `corpus`."""
