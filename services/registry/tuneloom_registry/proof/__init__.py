"""Evidence that a merged model answers as base plus adapter does. The only room of the registry that needs torch."""
