"""Pure functions on arrays: the physics of susceptibility, field and phase."""
