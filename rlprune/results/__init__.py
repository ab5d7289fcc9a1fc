"""Records of trials, the run folder, the frontier and its reports; neither torch nor ray is imported here."""
