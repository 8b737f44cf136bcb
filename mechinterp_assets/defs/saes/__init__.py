"""Assets of the group `saes`."""
