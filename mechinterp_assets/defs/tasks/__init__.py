"""Assets of the group `tasks`."""
