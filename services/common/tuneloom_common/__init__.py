"""What every service stands on. No machine learning and no domain of a single service belongs here."""
