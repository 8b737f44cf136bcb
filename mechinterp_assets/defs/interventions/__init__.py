"""Assets of the group `interventions`."""
