"""Small stand-ins, built from installed packages."""
