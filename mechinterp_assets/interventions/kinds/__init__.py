"""One file per kind of intervention: what is edited, and how."""
