"""A socket set and an independent process that takes it over: SCM_RIGHTS at a path."""
