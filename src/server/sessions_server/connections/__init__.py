"""What connections of all versions of HTTP have in common: places, ages, settings and last words."""
