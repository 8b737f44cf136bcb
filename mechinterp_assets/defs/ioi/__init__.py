"""Assets of the group `ioi`."""
