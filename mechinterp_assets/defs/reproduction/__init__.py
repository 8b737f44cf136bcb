"""Assets of the group `reproduction`."""
