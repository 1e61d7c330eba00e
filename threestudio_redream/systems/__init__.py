"""Systems: the classes a configuration names as ``system_type``."""
