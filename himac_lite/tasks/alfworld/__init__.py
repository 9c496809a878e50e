"""ALFWorld (Shridhar et al. 2021, arXiv 2010.03768): its own engine, on the user's games or on small ones of ours."""
