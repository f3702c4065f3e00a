"""How close two films are."""
