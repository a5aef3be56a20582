"""The vendors: the only modules that know their JSON."""
