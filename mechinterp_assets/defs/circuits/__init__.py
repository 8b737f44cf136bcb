"""Assets of the group `circuits`."""
