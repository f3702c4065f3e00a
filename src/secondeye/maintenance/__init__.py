"""Look after a checkout: report what the machine can do, delete what nothing refers to."""
