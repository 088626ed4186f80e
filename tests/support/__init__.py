"""Code that several test modules share. It contains no tests."""
