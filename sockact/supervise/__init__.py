"""Running services: on demand, watched, and replaced without a gap."""
