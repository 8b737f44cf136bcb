"""What the settings of all packages are made of."""
