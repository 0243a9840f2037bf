"""Training of networks, in a folder from which it resumes."""
