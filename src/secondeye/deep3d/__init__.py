"""Deep3D (Xie, Girshick, Farhadi, ECCV 2016, arXiv 1604.03650), a rival to compare with: our implementation.

It makes the right view from the left one without depth: a network predicts for each pixel the probabilities
of a few shifts, and the right view is the sum of the shifted left views, weighted by them.
"""
