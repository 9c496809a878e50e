"""WebShop (Yao et al. 2022, arXiv 2207.01206) as a self-contained text environment, and a client of a running one."""
