"""The paper's comparisons (its Figures 7 to 10) as pages, from the user's films and models."""
