"""What is published: a wheel and an sdist."""
