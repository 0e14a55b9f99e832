"""What people touch: browser pages, HTTP, command line. Never imports torch."""
