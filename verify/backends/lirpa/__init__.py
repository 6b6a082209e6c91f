"""auto_LiRPA (Xu et al. 2020, arXiv:2002.12920) behind our interfaces: a peer, a cross-check, an optional method."""
