"""One file descriptor at a time: owning it, placing it, finding out what it is."""
