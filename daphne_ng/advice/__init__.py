"""What a project that used Daphne has to change."""
