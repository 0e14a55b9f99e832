"""The small model that ships with the application, the grammar it was taught, and the script that made it."""
