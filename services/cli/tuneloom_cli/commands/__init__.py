"""The verbs, one file per noun. Heavy imports happen inside the functions, so that help is instant."""
