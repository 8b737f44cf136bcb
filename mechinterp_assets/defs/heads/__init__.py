"""Assets of the group `heads`."""
